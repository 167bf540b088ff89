from mechanisms.test_of_nothing import Missing


def test_it():
    assert Missing()
