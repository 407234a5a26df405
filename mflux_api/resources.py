"""Find this package and the files that come with it: the model registry, the prompt filter, the embedded model.

In a checkout the files lie in its top-level folders, in an installed package in the folder `data`.
"""

import os
from importlib.resources import files
from pathlib import Path

PACKAGE_DIR = Path(str(files(__package__)))
# The folder that Python imports this package from.
IMPORT_DIR = PACKAGE_DIR.parent


def find_checkout() -> Path | None:
    """Return the folder of the checkout that this package lies in, None for an installed package."""
    marks = ("pyproject.toml", "configs/models.yaml")
    return IMPORT_DIR if all((IMPORT_DIR / name).is_file() for name in marks) else None


def find_resource(name: str) -> Path:
    """Return the path of a file or folder that comes with the program, such as "configs/models.yaml"."""
    return (find_checkout() or PACKAGE_DIR / "data") / name


def make_child_environ() -> dict[str, str]:
    """Return the environment of a child process that is to import this same package.

    Start it with Python's -P: otherwise the working directory comes first, with another mflux_api or a random.py.
    """
    path = [str(IMPORT_DIR), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
