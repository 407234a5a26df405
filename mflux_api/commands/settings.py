"""`settings`: print the effective settings and the origin of each value."""

import os
from collections.abc import Mapping
from pathlib import Path

from mflux_api import settings
from mflux_api.settings import LoadedSettings


def load_settings(arguments: Mapping[str, str], file: Path | None) -> LoadedSettings:
    """Load the settings from arguments, environment and file. Raises InvalidSetting."""
    return settings.load(arguments, os.environ, file)


def print_settings(arguments: Mapping[str, str], file: Path | None, *, example: bool) -> None:
    """Print the effective settings, or with `example` a complete configuration file with the defaults."""
    if example:
        print(settings.render_example(), end="")
        return
    for line in settings.describe(load_settings(arguments, file)):
        print(line)
