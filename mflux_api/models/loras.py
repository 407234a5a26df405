"""Find LoRA adapters by name or path, restricted to the allowed folders."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from mflux_api.errors import InvalidRequest, LoraInvalid, LoraNotFound
from mflux_api.request import LoraUse

SUFFIX = ".safetensors"
# In bytes. With the suffix it fits every file system.
LONGEST_NAME = 240
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
    places = ", ".join(map(str, folders)) or "no folder"
    raise LoraNotFound(f"There is no LoRA '{name}' (looked in {places}).", lora=name)


def resolve_client_lora(choice: tuple[str, float], folder: Path) -> LoraUse:
    """Find an adapter named by a client: a file inside the folder. Paths outside are not looked up at all.

    Raises LoraNotFound, and InvalidRequest for a scale out of range.
    """
    name = choice[0]
    given = PurePath(name)
    outside = given.is_absolute() or ".." in given.parts or name.startswith("~")
    if not outside and len(name.encode()) <= LONGEST_NAME:
        with suppress(LoraNotFound, LoraInvalid):
            return resolve_lora(choice, [folder], anywhere=False)
    raise LoraNotFound(f"There is no LoRA '{name[:SHOWN]}'. GET /api/v1/loras lists them.", lora=name[:SHOWN])


@dataclass(frozen=True, kw_only=True)
class LoraFolder:
    """The folder of a server's adapters. `anywhere`: clients may name any path."""

    folder: Path
    anywhere: bool

    def resolve_loras(self, loras: Sequence[tuple[str, float]]) -> tuple[LoraUse, ...]:
        """Find the files of adapters, given as (name, scale). Raises LoraNotFound, LoraInvalid, InvalidRequest."""
        if self.anywhere:
            return tuple(resolve_lora(choice, [self.folder], anywhere=True) for choice in loras)
        return tuple(resolve_client_lora(choice, self.folder) for choice in loras)

    def list_files(self) -> list[tuple[str, int]]:
        """Return (name, bytes) of the adapter files in the folder."""
        found = sorted(self.folder.rglob(f"*{SUFFIX}"))
        inside = [path for path in found if path.resolve().is_relative_to(self.folder.resolve())]
        return [(str(path.relative_to(self.folder).with_suffix("")), path.stat().st_size) for path in inside]


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
    if real.suffix != SUFFIX:
        raise LoraInvalid(f"{path} is not a {SUFFIX} file; other formats can run code.", path=str(path))
    return real


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
