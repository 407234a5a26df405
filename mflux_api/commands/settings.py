"""`settings`: what the server would run with, and where each value comes from."""

import os
from collections.abc import Mapping
from pathlib import Path

from mflux_api import settings
from mflux_api.settings import Loaded


def load(arguments: Mapping[str, str], file: Path | None) -> Loaded:
    """Raises InvalidSetting."""
    return settings.load(arguments, os.environ, file)


def show(arguments: Mapping[str, str], file: Path | None, *, example: bool) -> None:
    """Print the settings in force, or a configuration file that says them all."""
    if example:
        print(settings.example(), end="")
        return
    for line in settings.describe(load(arguments, file)):
        print(line)
