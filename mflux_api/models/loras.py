"""Find LoRA adapters by name or path, restricted to the allowed folders."""

import functools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mflux_api.checkpoints.safetensors import read_metadata
from mflux_api.errors import InvalidRequest, LoraInvalid, LoraNotFound, ModelCorrupt
from mflux_api.models.folders import normalise_name, walk_files
from mflux_api.request import LoraUse

SUFFIX = ".safetensors"
# The key of a file's header that sd-scripts write their name of the adapter to.
ALIAS = "ss_output_name"
SHOWN = 100
LoraChoice = LoraUse | str | Path | tuple[str | Path, float]


def parse_lora_choice(choice: LoraChoice) -> tuple[str, float]:
    """Return a name or path and its scale, from "name", "name:0.8", a path, or a pair. Raises InvalidRequest."""
    if isinstance(choice, LoraUse):
        return choice.path, choice.scale
    if isinstance(choice, tuple):
        return str(choice[0]), _parse_scale(choice[1])
    if isinstance(choice, Path):
        return str(choice), 1.0
    name, colon, scale = choice.rpartition(":")
    # A path may contain a colon, so only a number after it is a scale.
    if colon and name and _is_number(scale):
        return name, _parse_scale(scale)
    return choice, 1.0


def resolve_lora(choice: LoraChoice, folders: Sequence[Path], *, anywhere: bool) -> LoraUse:
    """Find the file of an adapter. `anywhere` also allows paths outside `folders`.

    Raises LoraNotFound, and LoraInvalid for files other than safetensors and for paths that lead outside.
    """
    name, scale = parse_lora_choice(choice)
    for path in _candidates(name, folders, anywhere=anywhere):
        if path.is_file():
            return LoraUse(path=str(_check_path(path, folders, anywhere=anywhere)), scale=scale)
    for folder in folders:
        found = find_lora(name, list_lora_files(folder, follow_links=anywhere))
        if found is not None:
            return LoraUse(path=str(found.path.absolute()), scale=scale)
    places = ", ".join(map(str, folders)) or "no folder"
    raise LoraNotFound(f"There is no LoRA '{name}' (looked in {places}).", lora=name)


@dataclass(frozen=True)
class LoraFile:
    """An adapter in the folder. `name`: its path in the folder, without suffix, composed (NFC). `size`: in bytes.

    `alias`: the name in its metadata, which SD-WebUI writes into prompts, else the last part of `name`.
    """

    name: str
    alias: str
    path: Path
    size: int


def find_lora(name: str, files: Sequence[LoraFile]) -> LoraFile | None:
    """Find an adapter by its name, the last part of it, or its alias. Exact names come first, then any case."""
    wanted = unicodedata.normalize("NFC", name).removesuffix(SUFFIX)
    for change in (str, normalise_name):
        for read in _NAMES:
            found = next((file for file in files if change(read(file)) == change(wanted)), None)
            if found is not None:
                return found
    return None


_NAMES: tuple[Callable[[LoraFile], str], ...] = (
    lambda file: file.name,
    lambda file: file.name.rpartition("/")[2],
    lambda file: file.alias,
)


def list_lora_files(folder: Path, *, follow_links: bool) -> list[LoraFile]:
    """List the adapters in a folder and below, by name. `follow_links`: links may lead out of it."""
    found = []
    for path in walk_files(folder, SUFFIX, follow_links=follow_links):
        # A file may have been deleted since it was listed.
        with suppress(OSError):
            status = path.stat()
            name = unicodedata.normalize("NFC", path.relative_to(folder).as_posix().removesuffix(SUFFIX))
            alias = _read_alias(path, status.st_mtime_ns, status.st_size) or name.rpartition("/")[2]
            found.append(LoraFile(name, alias, path, status.st_size))
    return found


@functools.lru_cache(maxsize=4096)
def _read_alias(path: Path, changed: int, size: int) -> str:
    """Return the name in a file's header, or "". Cached until the file changes."""
    try:
        return str(read_metadata(path).get(ALIAS) or "").strip()
    except ModelCorrupt:
        # Not readable: it is reported when the adapter is used.
        return ""


@dataclass(frozen=True, kw_only=True)
class LoraFolder:
    """The folder of a server's adapters. `anywhere`: clients may name any path. `follow_links`: see `walk_files`."""

    folder: Path
    anywhere: bool
    follow_links: bool = True

    def resolve_loras(self, loras: Sequence[tuple[str, float]]) -> tuple[LoraUse, ...]:
        """Find the files of adapters, given as (name, scale). Raises LoraNotFound, LoraInvalid, InvalidRequest."""
        files = self.list_files() if loras else []
        return tuple(self._resolve(name, scale, files) for name, scale in loras)

    def list_files(self) -> list[LoraFile]:
        """Return the adapters in the folder. Clients name one of these, so that no path of theirs is looked up."""
        return list_lora_files(self.folder, follow_links=self.follow_links)

    def _resolve(self, name: str, scale: float, files: Sequence[LoraFile]) -> LoraUse:
        found = find_lora(name, files)
        if found is not None:
            return LoraUse(path=str(found.path.absolute()), scale=_parse_scale(scale))
        if self.anywhere:
            return resolve_lora((name, scale), [self.folder], anywhere=True)
        raise LoraNotFound(f"There is no LoRA '{name[:SHOWN]}'. GET /api/v1/loras lists them.", lora=name[:SHOWN])


def _candidates(name: str, folders: Sequence[Path], *, anywhere: bool) -> Iterator[Path]:
    given = Path(name).expanduser()
    if given.is_absolute() or anywhere:
        yield given
    if not given.is_absolute():
        for folder in folders:
            yield folder / given
            yield folder / f"{name}{SUFFIX}"


def _check_path(path: Path, folders: Sequence[Path], *, anywhere: bool) -> Path:
    # resolve() follows links and "..", so that the check sees the file that is read.
    real = path.resolve()
    inside = anywhere or any(real.is_relative_to(folder.resolve()) for folder in folders)
    if not inside:
        raise LoraInvalid(f"{path} is outside the LoRA folders.", path=str(path))
    # The link's own name counts: in the Hugging Face cache files are named by their hashes.
    if path.suffix != SUFFIX:
        raise LoraInvalid(f"{path} is not a {SUFFIX} file; other formats can run code.", path=str(path))
    return path.absolute() if path.is_symlink() else real


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _parse_scale(value: str | float) -> float:
    scale = float(value)
    if not -10 <= scale <= 10:
        raise InvalidRequest(f"A LoRA scale must be between -10 and 10, not {value!r}.", field="loras")
    return scale
