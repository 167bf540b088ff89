"""A process of its own that appends to the log from several threads: `appender.py THREADS EACH`."""

from __future__ import annotations

import sys
import threading

import django

THREADS, EACH = int(sys.argv[1]), int(sys.argv[2])


def append(name: str) -> None:
    from audit import log
    from audit.actors import SYSTEM
    from django.db import connection, transaction

    for number in range(EACH):
        with transaction.atomic():
            log.append(actor=SYSTEM, verb="auth.login", subject=f"user:{name}-{number}")
    connection.close()


django.setup()
from django.db import connection, connections  # noqa: E402

if connection.vendor == "sqlite":  # each waits for all the others, on a machine that may be busy
    connections.settings["default"]["OPTIONS"]["timeout"] = 150
threads = [threading.Thread(target=append, args=(str(n),)) for n in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
