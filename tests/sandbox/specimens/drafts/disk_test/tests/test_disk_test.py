def test_disk(tmp_path):
    for number in range(1000):
        (tmp_path / str(number)).write_bytes(bytes(1 << 20))
