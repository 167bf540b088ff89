"""Asks a name server while it is imported."""

import socket

socket.getaddrinfo("example.org", 443)

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    pass
