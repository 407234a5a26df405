"""Find the browser of this machine for the tests that need one."""

import shutil
from pathlib import Path

# No requests to other hosts: disable what a browser fetches when it starts.
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-proxy-server"),
]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = (
    "/usr/bin/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
INSTALL = "No Chromium or Chrome was found (Debian: apt install chromium; macOS: brew install --cask google-chrome)."


def find_browser() -> str | None:
    """Return the path of a Chromium or Chrome; None where there is none."""
    found = [path for name in NAMES if (path := shutil.which(name))]
    found += [place for place in PLACES if Path(place).is_file()]
    return found[0] if found else None
