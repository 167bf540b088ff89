"""bandit kept ready: a process that has imported it, and forks for each look.

Run by `sandbox.checks.bandit` as a script of its own, in isolated mode, without anything of ours.
A request is a line of JSON, the answer a line with the exit code; what bandit found is in the file
that its arguments name. Each look is a process that ends, and nothing of one draft is left for the
next. The import takes ten times as long as a look.
"""

import json
import os
import signal
import sys
from typing import NoReturn

from bandit.cli import main as bandit  # type: ignore[import-untyped]


def look(request: dict[str, object]) -> NoReturn:
    """In the forked process: run bandit's own command line, and never return."""
    code = 1
    try:
        signal.alarm(int(str(request["seconds"])))  # nobody catches it: it ends this process
        null = os.open(os.devnull, os.O_RDWR)
        said = os.open(str(request["said"]), os.O_WRONLY | os.O_CREAT, 0o600)
        for here, descriptor in enumerate((null, null, said)):
            os.dup2(descriptor, here)
        os.chdir(str(request["folder"]))
        sys.argv = ["bandit", *request["arguments"]]  # type: ignore[misc]
        bandit.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        os._exit(code)


def main() -> None:
    """Serve until the one who asks hangs up."""
    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            look(json.loads(line))
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(json.dumps({"code": os.waitstatus_to_exitcode(status)}) + "\n")
        sys.stdout.flush()


main()
