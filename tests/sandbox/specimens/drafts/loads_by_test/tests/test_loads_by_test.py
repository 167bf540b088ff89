from mechanisms.loads_by_test import np


def test_it():
    np.fromfile('/etc/none')
