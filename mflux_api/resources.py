"""Find the files that come with the program: the model registry, the prompt filter, the embedded model.

In a checkout they lie in its top-level folders, in an installed package in the folder `data`.
"""

from importlib.resources import files
from pathlib import Path

PACKAGE_DIR = Path(str(files(__package__)))
# The folder that Python imports this package from. A child process imports the same package from there.
IMPORT_DIR = PACKAGE_DIR.parent


def find_checkout() -> Path | None:
    """Return the folder of the checkout that this package lies in, None for an installed package."""
    marks = ("pyproject.toml", "configs/models.yaml")
    return IMPORT_DIR if all((IMPORT_DIR / name).is_file() for name in marks) else None


def find_resource(name: str) -> Path:
    """Return the path of a file or folder that comes with the program, such as "configs/models.yaml"."""
    return (find_checkout() or PACKAGE_DIR / "data") / name
