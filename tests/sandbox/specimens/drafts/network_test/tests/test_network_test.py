import socket


def test_network():
    socket.create_connection(('1.1.1.1', 53), timeout=1)
