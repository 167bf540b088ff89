"""Static checks: what they find, what they leave alone, and what they say."""

from __future__ import annotations

import importlib
import json
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.checks import characters, dependencies, imports, table
from sandbox.report import CheckResult, Draft, Outcome, Severity


def draft(source: str | bytes, test: str = "") -> Draft:
    data = source if isinstance(source, bytes) else source.encode()
    files = {"mechanisms/a.py": data}
    if test:
        files["tests/test_a.py"] = test.encode()
    return Draft(mechanism_path="mechanisms/a.py", files=files)


def rules(result: CheckResult, severity: Severity = Severity.ERROR) -> set[str]:
    return {f.rule for f in result.findings if f.severity is severity}


# --- imports ---

ORDINARY = """
from __future__ import annotations
import collections.abc, math, random, itertools, operator, re
import numpy as np
import numpy.random as npr
import numpy.typing as npt
from numpy.linalg import norm
from cmaes import CMA
import optuna
from optuna.samplers import TPESampler
from scipy import optimize
from scipy.stats import norm as normal, qmc
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process.kernels import Matern
from dataclasses import dataclass, field, asdict
from enum import Enum
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol
from sandbox.mechanism import Candidate, Mechanism, Trial, View
import sandbox.mechanism as interface
try:
    import numpy as xp
except ImportError:
    xp = None
if TYPE_CHECKING:
    from collections.abc import Sequence
LIMITS: tuple[float, ...] = (0.1, 0.9)
if __name__ == "__main__":
    print(type(3), type(LIMITS).__name__)
PATTERN = re.compile(r"[A-Z_]+")

@dataclass(frozen=True)
class Arm:
    x: float = math.inf
    names: list[str] = field(default_factory=list)
    def __post_init__(self):
        object.__setattr__(self, "x", 1.0)

class M(Mechanism):
    name = "m"
    __slots__ = ("_x",)
    def __init__(self):
        super().__init__()
        self.__dict__.update({})
    def __repr__(self):
        return f"{type(self).__name__} {self.__class__.__name__}"
    def __mul__(self, other):
        return other
    __rmul__ = __mul__
    def propose(self, view: View, count: int) -> list[Candidate]:
        random = view.random
        id, open = 3, [1]
        ordered = sorted(view.trace, key=attrgetter("metric"))
        drawn = [random.random() for random in [view.random]]
        rng = np.random.default_rng(view.random.getrandbits(32))
        own = interface.Candidate(changes={}, reason=f"{id} {open} {len(ordered)} {drawn}")
        if xp is not None:
            norm(np.zeros(3)), np.linalg.norm(rng.normal(size=3)), npr.Generator
        def helper(random, math):
            return random, math
        helper(random, 1)
        y = getattr(self, "_x", None)
        copy = self.__class__()
        for key, value in asdict(Arm()).items():
            setattr(self, key, value)
        match y:
            case Arm(x=1.0):
                pass
            case [first, *rest] | {"k": first, **rest}:
                pass
        return ["{0.x} {1[a]}".format(Arm(), {"a": 1}), vars(own), own]
    def state(self):
        return {key: value for key, value in vars(self).items()}
"""


def test_ordinary_numeric_code_has_no_finding() -> None:
    assert imports.check(draft(ORDINARY)).findings == ()
    assert rules(dependencies.check(draft(ORDINARY))) == set()
    assert characters.check(draft(ORDINARY)).findings == ()


REACHES = [
    ("import socket", "import-not-allowed", "the network"),
    ("import http.client as h", "import-not-allowed", "the network"),
    ("from os import environ", "import-not-allowed", "the environment"),
    ("import os.path", "import-not-allowed", "the environment"),
    (
        "import os as o\no.fork()",
        "import-not-allowed",
        "uses fork: a mechanism may not reach processes",
    ),
    ("import os\nos.environ\nos.remove('x')", "import-not-allowed", "files and the environment"),
    ("import os", "import-not-allowed", "environment, files and processes"),
    ("import subprocess", "import-not-allowed", "processes"),
    ("import ctypes", "import-not-allowed", "native code"),
    ("import sys", "import-not-allowed", "interpreter"),
    ("import pickle", "import-not-allowed", "code made from data"),
    ("from pathlib import Path", "import-not-allowed", "files"),
    ("import time", "import-not-allowed", "clock"),
    ("def f():\n class A:\n  import importlib", "import-not-allowed", "interpreter"),
    ("from . import x", "import-not-allowed", "relative"),
    ("from sandbox import worker", "import-not-allowed", "sandbox.worker"),
    ("import sandbox", "import-not-allowed", "sandbox"),
    ("import numpy.ctypeslib", "import-not-allowed", "numpy.ctypeslib"),
    ("import contextlib\ncontextlib.os", "name-not-allowed", "environment"),
    ("from dataclasses import builtins", "name-not-allowed", "interpreter"),
    ("import random\nrandom._os.fork()", "name-not-allowed", "processes"),
    ("import numpy as np\nnp.load('x')", "name-not-allowed", "load from numpy"),
    ("import numpy as np\nnp.lib.npyio.DataSource", "name-not-allowed", "npyio"),
    ("from numpy import memmap as m", "name-not-allowed", "memmap"),
    ("import numpy as np\nnp.random.bit_generator.x", "name-not-allowed", "bit_generator"),
    ("import scipy.io", "import-not-allowed", "scipy.io"),
    ("from scipy import stats, datasets", "import-not-allowed", "scipy.datasets"),
    ("from scipy.stats import rv_continuous", "name-not-allowed", "rv_continuous"),
    ("import scipy.stats as s\ns.sampling.X", "name-not-allowed", "sampling"),
    ("import joblib", "import-not-allowed", "code made from data"),
    ("from sklearn.datasets import fetch_openml", "import-not-allowed", "sklearn.datasets"),
    ("from sklearn.utils import parallel", "import-not-allowed", "sklearn.utils"),
    ("from optuna.storages import JournalStorage", "import-not-allowed", "optuna.storages"),
    ("import optuna\noptuna.load_study('x')", "name-not-allowed", "load_study"),
    ("import optuna\noptuna.storages.RDBStorage", "name-not-allowed", "storages"),
    ("import cmaes\ncmaes._cma.warnings", "name-not-allowed", "_cma"),
    ("import typing\ntyping.get_type_hints", "name-not-allowed", "get_type_hints"),
    ("from string import Formatter", "name-not-allowed", "Formatter"),
    ("from math import *", "star-import", "math"),
    ("import math\nx = math", "module-as-value", "math"),
    ("import math\n[m.pi for m in [math]]", "module-as-value", "math"),
    ("import numpy as np\nx = np.random", "module-as-value", "numpy.random"),
    ("import math\nmath.pi = 3", "module-changed", "pi"),
    ("import math\nmatch math:\n case object(): pass", "module-as-value", "math"),
    ("open('x')", "builtin-not-allowed", "files"),
    ("f = eval", "builtin-not-allowed", "code made from data"),
    ("@exec\nclass A: pass", "builtin-not-allowed", "code made from data"),
    ("f'{eval(1)}'", "builtin-not-allowed", "code made from data"),
    ("def f(x: eval('1') = 1): pass", "builtin-not-allowed", "code made from data"),
    ("lambda x=globals(): x", "builtin-not-allowed", "interpreter"),
    ("vars()", "builtin-not-allowed", "interpreter"),
    ("__builtins__['eval']", "builtin-not-allowed", "interpreter"),
    ("__import__('os')", "builtin-not-allowed", "allow list"),
    ("def f():\n global open\n open('x')", "builtin-not-allowed", "files"),
    ("class A:\n open = 1\n def f(self): open('x')", "builtin-not-allowed", "files"),
    ("().__class__", "dunder-not-allowed", "__class__"),
    ("def f(): __class__", "dunder-not-allowed", "__class__"),
    ("match 1:\n case object(__class__=c): pass", "dunder-not-allowed", "__class__"),
    ("getattr(1, '__class__')", "dunder-not-allowed", "__class__"),
    ("import operator as o\no.attrgetter('a.__class__')", "dunder-not-allowed", "__class__"),
    ("getattr(1, 'a' + 'b')", "attribute-by-name", "getattr"),
    ("g = getattr", "attribute-by-name", "getattr"),
    ("from operator import methodcaller as m\nm(x)", "attribute-by-name", "methodcaller"),
    ("import operator\nf = operator.attrgetter\nf('a')", "attribute-by-name", "attrgetter"),
    ("(i for i in ()).gi_frame", "attribute-not-allowed", "interpreter"),
    ("x.ctypes", "attribute-not-allowed", "native"),
    ("'{0.__class__}'", "format-reach", "format"),
    ("if 0: eval = None\neval('1')", "builtin-not-allowed", "code made from data"),
    ("def f():\n open = 1\nopen('x')", "builtin-not-allowed", "files"),
    ("if 0: getattr = 1\ngetattr(1, 'a' + 'b')", "attribute-by-name", "getattr"),
    ("def f():\n global n\n import numpy as n\nn.load('x')", "name-not-allowed", "load"),
    (
        "def f():\n n = 0\n def g():\n  nonlocal n\n  import numpy as n\n n.load('x')",
        "name-not-allowed",
        "load",
    ),
    ("class A:\n import numpy as n\nA.n.load('x')", "import-in-class", "at the top"),
    ("class A:\n if 1:\n  from math import pi", "import-in-class", "at the top"),
    ("import warnings\nwarnings.catch_warnings()._module", "attribute-not-allowed", "interpreter"),
    ("x.y.sys.modules", "attribute-not-allowed", "interpreter"),
    ("x.os.system('id')", "attribute-not-allowed", "environment"),
    ("import numpy as np\nnp.zeros(3).dump('x')", "attribute-not-allowed", "files"),
    ("def f(view):\n view._prior_of", "private-name", "_prior_of"),
    ("class A:\n __array_interface__ = {}", "dunder-not-allowed", "__array_interface__"),
    ("class A:\n def __array_struct__(self): 1", "dunder-not-allowed", "__array_struct__"),
    ("class A:\n __annotations__ = {'x=f()': 1}", "dunder-not-allowed", "__annotations__"),
    ("A.__annotations__['x=f()'] = 1", "dunder-not-allowed", "__annotations__"),
    ("class A:\n def __reduce__(self): 1", "dunder-not-allowed", "__reduce__"),
    ("class A:\n def __getattribute__(self, n): 1", "dunder-not-allowed", "__getattribute__"),
    ("setattr(self, '__array_interface__', 1)", "dunder-not-allowed", "__array_interface__"),
    ("x = {'__class__': 1}", "dunder-not-allowed", "__class__"),
    ("type('A', (), {})", "builtin-not-allowed", "class"),
    ("from abc import ABCMeta\nABCMeta('A', (), {})", "builtin-not-allowed", "class"),
    ("import numpy as np\nnp.datetime64('now')", "name-not-allowed", "datetime64"),
    ("import numpy as np\nnp.array('now', dtype='M8[s]')", "clock-by-text", "clock"),
    ("x.astype('<M8[ms]')", "clock-by-text", "clock"),
    (
        "from numpy.lib.stride_tricks import as_strided",
        "name-not-allowed",
        "as_strided",
    ),
    ("from sandbox.mechanism import View\nView.ask = 1", "import-changed", "sandbox.mechanism"),
    (
        "from sandbox.mechanism import View\nsetattr(View, 'ask', 1)",
        "import-changed",
        "sandbox.mechanism",
    ),
    ("import runner.search", "import-not-allowed", "the program that runs"),
    ("import torch", "import-not-allowed", "a package that is not on the allow list"),
    ("import logging", "import-not-allowed", "a candidate's reason is the place for words"),
]


@pytest.mark.parametrize(("source", "rule", "says"), REACHES)
def test_reaching_out_is_named(source: str, rule: str, says: str) -> None:
    result = imports.check(draft(source))
    assert result.outcome is Outcome.FAILED
    assert any(f.rule == rule and says in f.message and f.why for f in result.findings), (
        result.findings
    )


@pytest.mark.parametrize(
    "source",
    [
        "import random\nrandom.random()",
        "from random import choice\nchoice([1])",
        "import random\nrandom.Random()",
        "import numpy as np\nnp.random.rand()",
        "from numpy.random import default_rng\ndefault_rng()",
        "def f(view):\n    view.random.seed()",
        "from scipy.stats import norm\nnorm.rvs(size=3)",
        "import random\nrandom.seed()\nrandom.random()",
    ],
)
def test_chance_without_a_seed_is_refused_in_a_mechanism(source: str) -> None:
    assert rules(imports.check(draft(source))) == {"unseeded-random"}
    in_a_test = imports.check(draft("x = 1", source))
    assert rules(in_a_test) == set()
    assert rules(in_a_test, Severity.WARNING) == {"unseeded-random"}


@pytest.mark.parametrize(
    "source",
    [
        "import random\nrandom.seed(7)\nrandom.random()",
        "import numpy as np\nnp.random.seed(7)\nnp.random.rand()",
        "id(3)",
    ],
)
def test_what_may_not_be_replayed_is_a_warning(source: str) -> None:
    result = imports.check(draft(source))
    assert result.outcome is Outcome.PASSED
    assert rules(result, Severity.WARNING)


def test_seeded_chance_is_fine() -> None:
    source = (
        "import random, numpy as np\nfrom numpy.random import default_rng, Generator, PCG64\n"
        "random.Random(1).seed(2)\ndefault_rng(3)\nnp.random.default_rng(seed=4)\n"
        "from scipy.stats import norm\nnorm.rvs(size=3, random_state=5)\n"
    )
    assert imports.check(draft(source)).findings == ()


def test_what_a_test_may_import() -> None:
    test = (
        "import pytest, numpy as np\nfrom mechanisms.a import A, _helper\n"
        "import mechanisms.a as m\n"
        "from sandbox.testing import make_view\nfrom sandbox import testing\n"
        "@pytest.mark.parametrize('x', [1])\ndef test_a(x):\n"
        "    np.testing.assert_allclose(1, 1)\n    m.A()\n    testing.make_view()\n"
        "    with pytest.raises(ValueError):\n        pass\n"
    )
    assert imports.check(draft("x = 1", test)).findings == ()
    assert rules(imports.check(draft(test))) == {"import-not-allowed", "name-not-allowed"}


@pytest.mark.parametrize(
    "test",
    [
        "from _pytest.reports import TestReport",
        "import pytest\npytest.exit('passed', 0)",
        "import mechanisms.b",
        "from mechanisms.a import np",
        "import mechanisms.a as m\nm.np.load('x')",
        "from mechanisms.a import __builtins__",
        "from sandbox.testing import random",
        "import os",
    ],
)
def test_what_a_test_may_not(test: str) -> None:
    assert imports.check(draft("import numpy as np", test)).outcome is Outcome.FAILED


@settings(deadline=None)
@given(st.text(alphabet="abcdxy.=()[]:\n ,'_*@1", max_size=60))
def test_any_python_is_judged(text: str) -> None:
    imports.check(draft(text))
    dependencies.check(draft(text))
    characters.check(draft(text))


def test_table_holds_public_names_that_are_no_modules() -> None:
    """Also against the packages installed here: nothing in the table may turn into a module."""
    names = table.allowed_names()
    assert set(names) == {*table.MECHANISM_MODULES, *table.TEST_MODULES}
    for module, allowed in names.items():
        real = importlib.import_module(module)
        for name in allowed:
            assert not name.startswith("_")
            assert not isinstance(getattr(real, name), ModuleType), f"{module}.{name}"
        assert not allowed & set(table.REFUSED.get(module, "").split())
    assert json.loads(table.FILE.read_text()) == {m: table.public_names(m) for m in names}, (
        "run: python -m sandbox.checks.table"
    )
