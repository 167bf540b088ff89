import time


def test_patience():
    time.sleep(3600)
