import gc
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from PIL import Image

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.memory_estimate import (
    LARGEST_REFERENCE,
    Machine,
    estimate_memory,
    estimate_picture_bytes,
)
from mflux_api.engine.model import Model, load_model
from mflux_api.engine.precision import choose_precision, device_name
from mflux_api.errors import ModelIncomplete
from mflux_api.models.registry import EMBEDDED_MODELS_DIR
from tests.support.estimating import estimate_held

TINY = EMBEDDED_MODELS_DIR / "flux2-tiny"
HERE = Machine(device=device_name(), bytes_per_value=choose_precision("auto").dtype.size)
Size = tuple[int, int]


def estimate_bytes(size: Size, references: list[Size]) -> int:
    return estimate_picture_bytes(Checkpoint.read(TINY), HERE, size=size, references=references)


def measure_bytes(model: Model, size: Size, references: list[Size]) -> int:
    """Return the peak bytes MLX takes beside the weights."""
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    images = [Image.linear_gradient("L").resize(each) for each in references]
    model.generate("a red circle", width=size[0], height=size[1], steps=1, seeds=(1,), images=images)
    return int(mx.get_peak_memory()) - before


@pytest.mark.parametrize(
    ("size", "references"),
    [
        ((64, 64), []),
        ((256, 256), []),
        pytest.param((512, 128), [], marks=pytest.mark.slow),
        pytest.param((64, 512), [], marks=pytest.mark.slow),
        ((64, 64), [(128, 128)]),
        ((128, 128), [(192, 128), (128, 160)]),
    ],
    ids=str,
)
def test_a_picture_takes_no_more_than_the_estimate_and_no_less_than_a_quarter(
    tiny: Model, size: Size, references: list[Size]
) -> None:
    real = measure_bytes(tiny, size, references)
    assert real <= estimate_bytes(size, references) <= 4 * real


def test_more_pixels_and_more_references_are_estimated_to_take_more() -> None:
    sizes: list[tuple[Size, list[Size]]] = [
        ((512, 512), []),
        ((1024, 512), []),
        ((1024, 1024), []),
        ((1024, 1024), [(1024, 1024)]),
        ((1024, 1024), [(1024, 1024), (1024, 1024)]),
    ]
    estimates = [estimate_bytes(*size) for size in sizes]
    assert estimates == sorted(set(estimates))


def test_a_reference_counts_as_the_megapixel_it_is_made() -> None:
    assert estimate_bytes((256, 256), [(8000, 6000)]) == estimate_bytes((256, 256), [(1024, LARGEST_REFERENCE // 1024)])


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_fewer_bits_take_fewer_bytes_and_leave_the_autoencoder_as_it_is(bits: int) -> None:
    whole = estimate_memory(Checkpoint.read(TINY), None, HERE, size=(64, 64), references=[], pictures=1)
    fewer = estimate_memory(Checkpoint.read(TINY), bits, HERE, size=(64, 64), references=[], pictures=1)
    assert fewer.transformer < whole.transformer
    assert fewer.text_encoder < whole.text_encoder
    assert (fewer.vae, fewer.activations) == (whole.vae, whole.activations)


@pytest.mark.parametrize("size", [(64, 64), (1024, 1024)])
def test_with_low_ram_the_text_encoder_and_the_painting_share_their_place(size: Size) -> None:
    found = estimate_memory(Checkpoint.read(TINY), None, HERE, size=size, references=[], pictures=1)
    saved = found.peak(low_ram=False) - found.peak(low_ram=True)
    assert saved == min(found.text_encoder, found.activations)


def test_more_pictures_take_the_room_of_one_more_and_then_no_more() -> None:
    one, two, many = (
        estimate_memory(Checkpoint.read(TINY), None, HERE, size=(256, 256), references=[], pictures=count)
        for count in (1, 2, 50)
    )
    assert two.activations - one.activations == 4 * 256 * 256
    assert many.activations == two.activations


def test_a_gpu_needs_less_for_the_same_picture() -> None:
    gpu = replace(HERE, device="gpu")
    checkpoint = Checkpoint.read(TINY)
    for references in ([], [(1024, 1024)]):
        on_gpu = estimate_picture_bytes(checkpoint, gpu, size=(1024, 1024), references=references)
        assert on_gpu < estimate_picture_bytes(checkpoint, HERE, size=(1024, 1024), references=references)


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("size", [(256, 256), (1024, 1024)])
def test_a_folder_without_configuration_is_estimated_by_its_tensors(
    tmp_path: Path, bits: int | None, size: Size
) -> None:
    load_model("flux2-tiny", quantize=bits).save(tmp_path / "saved")
    described = estimate_held(Checkpoint.read(tmp_path / "saved"), None, HERE.bytes_per_value)
    for part in ("transformer", "vae"):
        (tmp_path / "saved" / part / "config.json").write_text("{}")
    bare = Checkpoint.read(tmp_path / "saved")
    assert estimate_picture_bytes(bare, HERE, size=size, references=[]) == estimate_bytes(size, [])
    assert estimate_held(bare, None, HERE.bytes_per_value) == described


@pytest.mark.parametrize("bits", [4, 8])
def test_a_model_saved_quantized_takes_what_quantizing_it_would(tmp_path: Path, bits: int) -> None:
    load_model("flux2-tiny", quantize=bits).save(tmp_path / "saved")
    saved = estimate_held(Checkpoint.read(tmp_path / "saved"), None, HERE.bytes_per_value)
    assert saved == pytest.approx(estimate_held(Checkpoint.read(TINY), bits, HERE.bytes_per_value), rel=0.01)


def test_a_folder_with_files_missing_is_refused_as_loading_refuses_it(checkpoint: Path) -> None:
    for shard in (checkpoint / "transformer").glob("*.safetensors"):
        shard.unlink()
    with pytest.raises(ModelIncomplete):
        estimate_memory(Checkpoint.read(checkpoint), None, HERE, size=(64, 64), references=[], pictures=1)
