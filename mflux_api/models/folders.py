"""List the owner's folders: without hidden files, with links, and with names that compare as people read them."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from mflux_api.checkpoints.file_kinds import is_broken_link


def normalise_name(name: str) -> str:
    """Return the form in which names are compared: in any case, and in any composition of accents.

    macOS stores names decomposed ("e" and an accent), programs send them composed.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def list_entries(folder: Path, root: Path, *, follow_links: bool) -> list[Path]:
    """Return the usable entries of a folder, by name. Hidden ones and names that are no text are skipped.

    A link may lead out of `root` if `follow_links`. A link to nothing is skipped, and logged once.
    """
    try:
        found = sorted(path for path in folder.iterdir() if _is_readable_name(path.name))
    except OSError:
        return []
    return [path for path in found if not path.is_symlink() or _is_usable_link(path, root, follow_links=follow_links)]


def _is_readable_name(name: str) -> bool:
    # Bytes that are not UTF-8 become lone surrogates, which no reply can contain.
    return not name.startswith(".") and not any("\ud800" <= letter <= "\udfff" for letter in name)


def walk_files(root: Path, suffix: str, *, follow_links: bool) -> Iterator[Path]:
    """Yield the files with a suffix below a folder, by name.

    Links that the owner made inside the folder may lead out of it, to files and to folders. Links inside such a folder
    may not lead out of that folder.
    """
    yield from _walk(root, root, suffix, follow_links=follow_links, above=())


def _walk(folder: Path, root: Path, suffix: str, *, follow_links: bool, above: tuple[Path, ...]) -> Iterator[Path]:
    real = _resolve(folder)
    if real is None or real in above:
        # A link to a folder above it.
        return
    for path in list_entries(folder, root, follow_links=follow_links):
        if path.is_dir():
            foreign = path.is_symlink() and not _is_inside(path, root)
            yield from _walk(
                path,
                path if foreign else root,
                suffix,
                follow_links=follow_links and not foreign,
                above=(*above, real),
            )
        elif path.suffix == suffix and path.is_file():
            yield path


def _is_usable_link(path: Path, root: Path, *, follow_links: bool) -> bool:
    return not is_broken_link(path) and (follow_links or _is_inside(path, root))


def _is_inside(path: Path, root: Path) -> bool:
    real, inside = _resolve(path), _resolve(root)
    return real is not None and inside is not None and real.is_relative_to(inside)


def _resolve(path: Path) -> Path | None:
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        # It is gone, or a circle of links.
        return None
