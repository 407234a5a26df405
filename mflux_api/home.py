"""The home: the folder of config.yaml, models/, output/ and logs/, and the names inside it."""

import os
from pathlib import Path

from mflux_api.errors import InvalidSetting
from mflux_api.resources import find_checkout

VARIABLE = "MFLUX_HOME"
INSTALLED_HOME = Path("~/.mflux-api")

CONFIG_FILE = Path("config.yaml")
MODELS_DIR = Path("models")
OUTPUT_DIR = Path("output")
STYLES_FILE = Path("styles.csv")
LOG_FILE = Path("logs/mflux-api.log")


def find_home(chosen: Path | None = None) -> Path:
    """Return the chosen folder, or that of MFLUX_HOME, or the default. The folder need not exist yet.

    The default is ~/.mflux-api, and in a checkout the working directory, as the empty path: the paths of its files
    stay relative. Raises InvalidSetting for the home of an unknown user, such as ~nobody-here/x.
    """
    named = chosen or os.environ.get(VARIABLE)
    if not named and find_checkout():
        return Path()
    try:
        return Path(named or INSTALLED_HOME).expanduser().absolute()
    except RuntimeError:
        raise InvalidSetting(f"There is no user whose home {named or INSTALLED_HOME} could be in.") from None
