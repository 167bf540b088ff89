"""What a mechanism may import: allowed modules with their public names, as a table of data.

`names.json` is the table that checks read, so that a judgement never depends on what happens to
be installed where the check runs. `python -m sandbox.checks.table` writes it again from the real
modules: public names that are no modules, minus those refused below. Review its diff.
"""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path
from types import ModuleType

FILE = Path(__file__).with_name("names.json")

MODULES_TEXT = (
    "__future__ abc array bisect cmath collections collections.abc contextlib copy dataclasses "
    "decimal enum fractions functools hashlib heapq itertools json math numbers numpy "
    "numpy.exceptions numpy.fft numpy.lib.stride_tricks numpy.linalg numpy.polynomial "
    "numpy.random numpy.typing operator random re sandbox.mechanism statistics string textwrap "
    "types typing warnings"
)
MECHANISM_MODULES = MODULES_TEXT.split()
TEST_MODULES = ["numpy.testing", "pytest"]

ONLY = {
    "types": "MappingProxyType SimpleNamespace",
    "warnings": "catch_warnings filterwarnings simplefilter warn",
    "pytest": "approx fail fixture mark param raises skip warns xfail",
    "numpy.testing": "assert_allclose assert_almost_equal assert_array_almost_equal "
    "assert_array_equal assert_array_less assert_equal assert_raises",
}

REFUSED = {
    # These evaluate text as code, or reach attributes by a text.
    "dataclasses": "make_dataclass",
    "functools": "singledispatch singledispatchmethod",
    "string": "Formatter",
    "typing": "ForwardRef get_type_hints",
    # Randomness outside of the seed.
    "random": "SystemRandom",
    # Files, native code, names of the caller, or the build of the library itself.
    "contextlib": "chdir",
    "hashlib": "file_digest",
    "numpy": "bmat from_dlpack fromfile fromregex genfromtxt get_include info load loadtxt memmap "
    "save savetxt savez savez_compressed show_config show_runtime test",
    "numpy.random": "test get_bit_generator set_bit_generator",
    "numpy.fft": "test",
    "numpy.linalg": "test",
    "numpy.polynomial": "test",
    "sandbox.mechanism": "Any Callable Iterator Literal Mapping MappingProxyType annotations "
    "dataclass field",
}


def public_names(module: str) -> list[str]:
    """The allowed names of an installed module, by looking at it."""
    real = importlib.import_module(module)
    if module in ONLY:
        return sorted(ONLY[module].split())
    offered = dir(real) if module == "numpy" else getattr(real, "__all__", dir(real))
    refused = set(REFUSED.get(module, "").split())
    return sorted(
        name
        for name in set(offered)
        if not name.startswith("_")
        and name not in refused
        and not isinstance(getattr(real, name), ModuleType)
    )


@cache
def allowed_names() -> dict[str, frozenset[str]]:
    """Module -> its allowed names, for mechanisms and tests together."""
    return {module: frozenset(names) for module, names in json.loads(FILE.read_text()).items()}


def main() -> None:
    """Write the table."""
    table = {m: public_names(m) for m in [*MECHANISM_MODULES, *TEST_MODULES]}
    FILE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
