"""Configs and headers of a checkpoint are read only once."""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.engine.model import load_model
from mflux_api.errors import ModelCorrupt
from mflux_api.models.registry import EMBEDDED_MODELS_DIR
from tests.support.estimating import estimate_small
from tests.support.stored_files import (
    Kind,
    copy_klein,
    in_their_names,
    load_weights,
    quantize_float8,
    write_gguf,
    write_safetensors,
)

CONFIGS = {"config.json", "model_index.json", "scheduler_config.json"}
HEADERS = (".index.json", ".safetensors", ".gguf")
_opened: list[Counter[str]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    # Only headers count: NumPy maps GGUF's blocks, and MLX's own code, which Python does not see, reads safetensors.
    if event == "open" and _opened and isinstance(arguments[0], (str, Path)) and not _is_numpy(sys._getframe(1)):
        _opened[-1][os.fspath(arguments[0])] += 1


def _is_numpy(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("numpy."):
            return True
        frame = frame.f_back
    return False


sys.addaudithook(_hear)


def is_read(path: Path) -> bool:
    """Return whether the file is a config or has a header. Tokenizers do not count: transformers reads them."""
    return path.name in CONFIGS or path.name.endswith(HEADERS)


@contextmanager
def opens(folder: Path) -> Iterator[Counter[Path]]:
    """Count how often each config and header of a folder is opened within the context."""
    found: Counter[Path] = Counter()
    _opened.append(Counter())
    try:
        yield found
    finally:
        for name, count in _opened.pop().items():
            if is_read(Path(name)) and Path(name).is_relative_to(folder):
                found[Path(name)] += count


def embedded(folder: Path) -> Path:
    return Path(shutil.copytree(EMBEDDED_MODELS_DIR / "flux2-tiny", folder))


def quantized(folder: Path) -> Path:
    """Write a quantized model as mflux saves it: with indexes and empty configs."""
    load_model("flux2-tiny", quantize=4).save(folder)
    for path in folder.glob("*/config.json"):
        path.write_text("{}")
    return folder


def gguf(folder: Path) -> Path:
    """Write a GGUF and a safetensors file beside the component folders; they are detected by their tensors."""
    copy_klein(folder)
    write_gguf(folder / "x.gguf", in_their_names(load_weights(folder / "transformer")), lambda _: Kind.Q8_0)
    shutil.rmtree(folder / "transformer")
    shutil.move(folder / "text_encoder" / "model.safetensors", folder / "encoder.safetensors")
    return folder


def float8(folder: Path) -> Path:
    copy_klein(folder)
    (path,) = (folder / "transformer").glob("*.safetensors")
    entries, _ = quantize_float8(in_their_names(load_weights(folder / "transformer")))
    write_safetensors(path, entries)
    return folder


@pytest.mark.parametrize("make", [embedded, quantized, gguf, float8])
def test_each_config_and_header_is_opened_once_to_estimate_and_load(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    folder = make(tmp_path / "model")
    with opens(folder) as counted:
        for bits in (None, 4):
            estimate_small(folder, bits)
        load_model(folder)
    assert counted == {path: 1 for path in folder.rglob("*") if is_read(path)}


def test_nothing_is_opened_again_while_no_file_changes(tmp_path: Path) -> None:
    folder = embedded(tmp_path / "model")
    before = estimate_small(folder)
    with opens(folder) as counted:
        assert estimate_small(folder) == before
    assert not counted
    assert Checkpoint.read(folder) is Checkpoint.read(folder)


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_a_file_that_changes_is_read_again(tmp_path: Path, part: str) -> None:
    folder = embedded(tmp_path / "model")
    estimate_small(folder)
    (path,) = (folder / part).glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelCorrupt, match="Download it again"):
        estimate_small(folder)


def test_a_network_that_is_loaded_later_is_read_as_it_is_then(tmp_path: Path) -> None:
    folder = embedded(tmp_path / "model")
    model = load_model(folder, low_ram=True)
    path = folder / "text_encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelCorrupt, match="Download it again"):
        model.generate("a red circle", width=64, height=64, steps=1, seeds=(1,))
