"""Refuses to make a package: Escapement runs from a checkout, or from an image of the Dockerfile.

Templates, the seed of the mechanisms, the lock and `manage.py` lie beside the code, not in it, and
a package with a module named `config` is nobody's good neighbour. `pip install -e .` works.
"""

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

WORDS = "Escapement is no package. In a checkout: make setup (or pip install -e .)"


class OnlyEditable(build_py):
    """The code stays where it is."""

    def run(self) -> None:
        """Link to it, or end."""
        if not self.editable_mode:
            raise SystemExit(WORDS)
        super().run()


class NoSdist(sdist):
    """git has the source."""

    def run(self) -> None:
        """End."""
        raise SystemExit(WORDS)


setup(cmdclass={"build_py": OnlyEditable, "sdist": NoSdist})
