"""The package version, read by the build as well. Apart from `__init__`, because that can import every module."""

__version__ = "0.2.0"
