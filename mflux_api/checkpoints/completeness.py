"""Whether a model's files are here and whole: names, headers and lengths, without the weights themselves."""

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mflux_api.checkpoints.detection import WEIGHT_COMPONENTS
from mflux_api.checkpoints.file_kinds import list_files
from mflux_api.checkpoints.gguf import GGUF_SUFFIX, read_gguf
from mflux_api.checkpoints.safetensors import read_indexes, read_shard
from mflux_api.errors import ModelCorrupt, ModelUnsupported

SAFETENSORS = ".safetensors"
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.safetensors")
TOKENIZER = "tokenizer"
# Any of these holds a tokenizer's vocabulary.
VOCABULARIES = ("tokenizer.json", "vocab.json", "tekken.json", "tokenizer.model")
TAIL_BYTES = 64


def find_missing_files(folder: Path, names: Sequence[str] = ()) -> list[str]:
    """Return the files and components that a FLUX.2 folder lacks, relative to it; those that are not whole too.

    `names`: files that it must have besides. A component is named as a folder ("vae") if it has no weights at all.
    """
    missing = [name for name in names if not is_whole_file(folder / name)]
    indexed = (folder / "model_index.json").is_file()
    for part in WEIGHT_COMPONENTS:
        missing += _find_missing_weights(folder, part)
        in_folder = any(path.suffix == SAFETENSORS for path in list_files(folder / part))
        if indexed and in_folder and not is_whole_file(folder / part / "config.json"):
            missing.append(f"{part}/config.json")
    present = [folder / TOKENIZER / name for name in VOCABULARIES if (folder / TOKENIZER / name).is_file()]
    if not any(map(is_whole_file, present)):
        missing.append(TOKENIZER)
    return list(dict.fromkeys(missing))


def _find_missing_weights(folder: Path, part: str) -> list[str]:
    inside = [path for path in list_files(folder / part) if path.suffix in {SAFETENSORS, GGUF_SUFFIX}]
    try:
        named = {str(name) for index in read_indexes(folder / part) for name in index["weight_map"].values()}
    except ModelCorrupt:
        return [f"{part}/{path.name}" for path in list_files(folder / part) if path.name.endswith(".index.json")]
    if named:
        return [f"{part}/{name}" for name in sorted(named) if not is_whole_file(folder / part / name)]
    if inside:
        expected = {path.name for path in inside} | set(_list_expected_shards(path.name for path in inside))
        return [f"{part}/{name}" for name in sorted(expected) if not is_whole_file(folder / part / name)]
    if part == "vae":
        return [part]
    # A transformer or a text encoder may be a file beside the folders.
    beside = [path for path in list_files(folder) if path.suffix in {SAFETENSORS, GGUF_SUFFIX}]
    broken = [path.name for path in beside if not is_whole_file(path)]
    return broken if beside else [part]


def _list_expected_shards(names: Iterator[str]) -> Iterator[str]:
    """Yield all names of numbered shards (00001-of-00004) of which one is here."""
    for name in names:
        if match := SHARD.fullmatch(name):
            for number in range(1, int(match["total"]) + 1):
                yield f"{match['stem']}-{number:05d}-of-{match['total']}.safetensors"


def is_whole_file(path: Path) -> bool:
    """Return whether a file is here and not cut off: weights by their header, JSON by its end, others by any byte."""
    try:
        status = path.stat()
    except OSError:
        return False
    if not path.is_file() or status.st_size == 0:
        return False
    return _is_whole(path, status.st_mtime_ns, status.st_size, status.st_ino)


@functools.lru_cache(maxsize=4096)
def _is_whole(path: Path, changed: int, size: int, inode: int) -> bool:
    """Read a file. Cached until it changes."""
    try:
        if path.suffix == SAFETENSORS:
            read_shard(path)
        elif path.suffix == GGUF_SUFFIX:
            read_gguf(path)
        elif path.suffix == ".json":
            return _ends_as_json(path, size)
    except ModelUnsupported:
        # Of a kind that this version cannot read. It says so when it is loaded.
        return True
    except (ModelCorrupt, RecursionError):
        return False
    return True


def _ends_as_json(path: Path, size: int) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(max(0, size - TAIL_BYTES))
            return file.read().rstrip().endswith((b"}", b"]"))
    except OSError:
        return False
