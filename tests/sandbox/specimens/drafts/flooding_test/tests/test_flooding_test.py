def test_words():
    import sys

    while True:
        sys.__stderr__.write('x' * 65536)
