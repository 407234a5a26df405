"""The package version. A module of its own, because the package's `__init__` can import every module."""

__version__ = "0.1.0"
