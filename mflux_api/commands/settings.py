"""`settings`: print the effective settings and the origin of each value."""

import os
from collections.abc import Mapping
from pathlib import Path

from mflux_api import settings
from mflux_api.settings import LoadedSettings


def load_settings(arguments: Mapping[str, str], file: Path | None, *, home: Path) -> LoadedSettings:
    """Load the settings from arguments, environment and file. Raises InvalidSetting."""
    return settings.load(arguments, os.environ, file, home=home)


def print_settings(arguments: Mapping[str, str], file: Path | None, *, home: Path, example: bool) -> None:
    """Print the home and the effective settings, or with `example` a complete configuration file with the defaults."""
    if example:
        print(settings.render_example(), end="")
        return
    print(f"# home: {home.absolute()}")
    for line in settings.describe(load_settings(arguments, file, home=home)):
        print(line)
