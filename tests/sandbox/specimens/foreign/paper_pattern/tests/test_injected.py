import sys
import os
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from mechanisms.injected import MultiScaleBanditProposer


def test_import():
    assert MultiScaleBanditProposer is not None


def test_propose_scales():
    proposer = MultiScaleBanditProposer(scales=[2.0])
    assert proposer.propose({"lr": 0.1}, []) == {"lr": 0.2}
