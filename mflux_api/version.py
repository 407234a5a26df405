"""The version, in a module of its own: the package's `__init__` reaches everything."""

__version__ = "0.1.0"
