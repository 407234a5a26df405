"""`settings`: print the effective settings and the origin of each value."""

import os
from collections.abc import Mapping
from pathlib import Path

from mflux_api import settings
from mflux_api.settings import Loaded


def load(arguments: Mapping[str, str], file: Path | None) -> Loaded:
    """Load the settings from arguments, environment and file. Raises InvalidSetting."""
    return settings.load(arguments, os.environ, file)


def show(arguments: Mapping[str, str], file: Path | None, *, example: bool) -> None:
    """Print the effective settings, or with `example` a complete configuration file with the defaults."""
    if example:
        print(settings.example(), end="")
        return
    for line in settings.describe(load(arguments, file)):
        print(line)
