"""What a forbidden module or builtin reaches for, in words for a person. Data and no judgement."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def _words(text: str) -> list[str]:
    return text.split()


NETWORK = "the network"
FILES = "files"
PROCESSES = "processes"
ENVIRONMENT = "the environment, files and processes"
NATIVE = "native code and raw memory"
INTERNALS = "the interpreter's internals"
CODE = "code made from data"
THREADS = "threads or further processes"
PROGRAM = "the program that runs and judges it"
PACKAGE = "a package that is not on the allow list"
LOGGING = "a log: a candidate's reason is the place for words"
CLOCK = "the clock: a run could not be replayed"
CHANCE = "randomness outside of the seed: a run could not be replayed"

_MODULES = {
    NETWORK: "socket ssl http urllib urllib3 ftplib smtplib poplib imaplib telnetlib nntplib "
    "xmlrpc socketserver select selectors requests httpx aiohttp websockets paramiko "
    "webbrowser ipaddress boto3 email mailbox openai grpc zmq cgi wsgiref",
    FILES: "io _io pathlib shutil tempfile glob fileinput sqlite3 dbm zipfile tarfile gzip bz2 "
    "lzma csv configparser fcntl mmap linecache filecmp pandas stat netrc plistlib",
    PROCESSES: "subprocess _posixsubprocess pty signal _signal resource sched atexit psutil",
    ENVIRONMENT: "os posix nt pwd grp platform getpass sysconfig site dotenv",
    NATIVE: "ctypes _ctypes cffi numba cython _cffi_backend",
    INTERNALS: "sys gc inspect builtins importlib imp pkgutil runpy code codeop dis ast symtable "
    "trace tracemalloc faulthandler weakref types unittest zipimport _thread _pytest pluggy "
    "threading_local bdb pdb",
    CODE: "pickle marshal shelve copyreg dill cloudpickle joblib codecs encodings",
    THREADS: "threading multiprocessing concurrent queue asyncio trio anyio ray dask",
    PROGRAM: "sandbox runner proposals audit runs mechanisms django escapement level1",
    LOGGING: "logging structlog loguru syslog",
    CLOCK: "time datetime timeit calendar zoneinfo",
    CHANCE: "secrets uuid",
}
MODULES = {name: reach for reach, names in _MODULES.items() for name in names.split()}

BUILTINS = {
    "open": FILES,
    "eval": CODE,
    "exec": CODE,
    "compile": CODE,
    "__import__": "modules past the allow list",
    "__builtins__": INTERNALS,
    "__loader__": INTERNALS,
    "__spec__": INTERNALS,
    "__file__": FILES,
    "globals": INTERNALS,
    "locals": INTERNALS,
    "memoryview": NATIVE,
    "input": "the worker's standard input",
    "breakpoint": "a debugger",
    "help": INTERNALS,
    "exit": "a way to end the worker's process",
    "quit": "a way to end the worker's process",
    "SystemExit": "a way to end the worker's process",
    "copyright": INTERNALS,
    "credits": INTERNALS,
    "license": INTERNALS,
}

# Attributes of functions, frames, code and arrays that lead out of a mechanism's own data.
ATTRIBUTES = {
    **dict.fromkeys(
        _words(
            "gi_frame gi_code gi_yieldfrom cr_frame cr_code cr_origin ag_frame ag_code f_back "
            "f_builtins f_code f_globals f_locals f_trace tb_frame tb_next co_code co_consts "
            "func_globals func_code mro _convert_ f_lineno tb_lasti "
            "ag_await cr_await _module _os _sys"
        ),
        INTERNALS,
    ),
    "ctypes": NATIVE,
    "cffi": NATIVE,
    "tofile": FILES,
}

# Dunder attributes that honest code uses and that lead nowhere.
HARMLESS_DUNDERS = frozenset(
    _words(
        "__init__ __post_init__ __new__ __setattr__ __name__ __qualname__ __doc__ __version__ "
        "__len__ __iter__ __next__ __contains__ __getitem__ __setitem__ __delitem__ __call__ "
        "__eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ __bool__ __int__ __float__ __index__ "
        "__str__ __repr__ __format__ __add__ __radd__ __iadd__ __sub__ __rsub__ __mul__ __rmul__ "
        "__truediv__ __floordiv__ __mod__ __pow__ __neg__ __abs__ __and__ __or__ __xor__ "
        "__enter__ __exit__ __init_subclass__ __set_name__ __members__ "
        "__dataclass_fields__ __dict__ __slots__ __match_args__ __array__ __matmul__"
    )
)
# Dunder names that a class may define: operators, containers and the like. Not those that make a
# value pretend, reach raw memory (`__array_interface__`), or put text into generated code
# (`__annotations__` of a dataclass).
DEFINABLE = HARMLESS_DUNDERS - {"__dict__", "__members__", "__dataclass_fields__"} | frozenset(
    _words(
        "__getattr__ __class_getitem__ __copy__ __deepcopy__ __missing__ __reversed__ __pos__ "
        "__invert__ __round__ __floor__ __ceil__ __trunc__ __complex__ __divmod__ __rdivmod__ "
        "__rtruediv__ __rfloordiv__ __rmod__ __rpow__ __rmatmul__ __imatmul__ __rand__ __ror__ "
        "__rxor__ __lshift__ __rshift__ __isub__ __imul__ __itruediv__ __ifloordiv__ __imod__ "
        "__ipow__ __iand__ __ior__ __ixor__ __length_hint__ __get__ __set__ __delete__ __delattr__ "
        "__dir__ __sizeof__ __fspath__ __aiter__ __anext__ __aenter__ __aexit__ __await__ "
        "__getstate__ __setstate__ __array_ufunc__ __array_priority__ __bytes__ "
        "__author__ __license__"
    )
)
# Private by their look, public by their documentation.
PRIVATE_OF_LIBRARIES = frozenset(
    _words(
        "_replace _asdict _fields _field_defaults _make _value_ _name_ _missing_ "
        "_generate_next_value_ _"
    )
)
HARMLESS_NAMES = frozenset({"__name__", "__doc__", "__debug__", "__all__", "__version__"})


# `os` is many things; what of it was used says which one was meant.
_OS = {
    "the environment": "environ environb getenv getenvb putenv unsetenv",
    PROCESSES: "fork forkpty system popen kill killpg abort _exit nice posix_spawn posix_spawnp "
    "execl execle execlp execv execve execvp execvpe spawnl spawnv spawnve wait waitpid setsid "
    "register_at_fork getpid getppid",
    "the worker's own streams": "read write close closerange dup dup2 fdopen pipe writev sendfile",
    FILES: "open remove unlink rename replace rmdir mkdir makedirs removedirs "
    "listdir scandir walk stat lstat chmod chown link symlink truncate path "
    "memfd_create statvfs access chdir getcwd urandom",
}
_OS_NAMES = {name: reach for reach, names in _OS.items() for name in _words(names)}


def reach_of(module: str, uses: Iterable[str] = ()) -> str:
    """What importing `module` would reach for; `uses` are the names that are taken from it."""
    root = module.split(".", maxsplit=1)[0]
    known = (
        sorted({_OS_NAMES[u] for u in uses if u in _OS_NAMES}) if root in ("os", "posix") else []
    )
    if known or root in MODULES:
        return " and ".join(known) or MODULES[root]
    return "anything that is not on the allow list" if root in sys.stdlib_module_names else PACKAGE
