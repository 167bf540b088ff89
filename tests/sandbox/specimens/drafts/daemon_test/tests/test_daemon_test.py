import os


def test_daemon():
    if os.fork() == 0:
        os.setsid()
        while True:
            pass
