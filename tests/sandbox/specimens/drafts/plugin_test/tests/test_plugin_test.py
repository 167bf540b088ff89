def pytest_collection_modifyitems(items):
    items.clear()


def test_it():
    raise RuntimeError('never run')
