"""LoRA adapters: removal restores the model exactly, and a bad adapter never changes it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from mflux_api.engine.flux2.adapter_layers import read_shape
from mflux_api.engine.model import Model, load_model
from mflux_api.errors import LoraInvalid, LoraNotFound, MfluxError
from mflux_api.request import LoraUse
from tests.support.marks import slow_but

Pixels = NDArray[np.float32]
Tensors = dict[str, mx.array]
LAYER = "transformer.single_transformer_blocks.0.attn.to_out"
RANK = 4


def paint(model: Model, *loras: LoraUse) -> Pixels:
    picture = model.generate("a red circle", width=64, height=64, steps=2, seeds=(3,), loras=loras)[0]
    return picture.array


def factors(model: Model, layer: str = LAYER, seed: int = 0, size: float = 0.3) -> Tensors:
    """Return a LoRA of rank 4 for one layer, in diffusers' names."""
    model.pipeline.adapters.remove()
    layers = dict(model.pipeline.transformer.named_modules())
    rows, columns = read_shape(layers[layer.removeprefix("transformer.")])
    keys = mx.random.split(mx.random.key(seed))
    return {
        f"{layer}.lora_A.weight": mx.random.normal((RANK, columns), key=keys[0]) * size,
        f"{layer}.lora_B.weight": mx.random.normal((rows, RANK), key=keys[1]) * size,
    }


def write(path: Path, tensors: Tensors) -> LoraUse:
    mx.save_safetensors(str(path), tensors)
    return LoraUse(path=str(path), scale=1.0)


def scaled(use: LoraUse, scale: float) -> LoraUse:
    return LoraUse(path=use.path, scale=scale)


def weights(model: Model) -> dict[str, Any]:
    flat = tree_flatten(model.pipeline.transformer.parameters(), destination={})
    assert isinstance(flat, dict)
    return {name: np.array(value.astype(mx.float32)) for name, value in flat.items()}


@pytest.fixture(scope="module", params=slow_but([None, 8, 4], None, 4), ids=["float32", "8-bit", "4-bit"])
def model(request: pytest.FixtureRequest) -> Model:
    return load_model("flux2-tiny", quantize=request.param)


@pytest.fixture
def lora(model: Model, tmp_path: Path) -> LoraUse:
    return write(tmp_path / "style.safetensors", factors(model))


def test_attach_rescale_detach_leaves_the_picture_as_it_was(model: Model, lora: LoraUse) -> None:
    bare = paint(model)
    worn = paint(model, lora)
    off = paint(model, scaled(lora, 0.0))
    again = paint(model, lora)
    assert np.abs(worn - bare).max() > 0.01
    np.testing.assert_array_equal(off, bare)
    np.testing.assert_array_equal(again, worn)
    np.testing.assert_array_equal(paint(model), bare)


def test_detaching_puts_the_models_own_layers_back(model: Model, lora: LoraUse) -> None:
    before = weights(model)
    paint(model, lora)
    paint(model)
    after = weights(model)
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_two_adapters_on_one_layer_add_up(model: Model, tmp_path: Path) -> None:
    first = write(tmp_path / "a.safetensors", factors(model, seed=1))
    second = write(tmp_path / "b.safetensors", factors(model, seed=2))
    both = paint(model, first, second)
    np.testing.assert_allclose(paint(model, second, first), both, atol=1e-5)
    assert np.abs(both - paint(model, first)).max() > 0.01
    np.testing.assert_allclose(paint(model, first, scaled(second, 0.0)), paint(model, first), atol=1e-6)


def test_the_count_of_what_matched_is_reported(model: Model, tmp_path: Path) -> None:
    tensors = {**factors(model), "text_encoder.layers.0.q_proj.lora_A.weight": mx.zeros((2, 2))}
    use = write(tmp_path / "partial.safetensors", tensors)
    picture = model.generate("x", width=64, height=64, steps=1, seeds=(3,), loras=[scaled(use, 0.5)])[0]
    report = picture.loras[0]
    assert (report.layers, report.keys, report.total_keys, report.scale) == (1, 2, 3, 0.5)


def test_alpha_scales_the_adapter(model: Model, tmp_path: Path) -> None:
    tensors = factors(model)
    plain = write(tmp_path / "plain.safetensors", tensors)
    alpha = write(tmp_path / "alpha.safetensors", {**tensors, f"{LAYER}.alpha": mx.array(RANK / 2)})
    np.testing.assert_allclose(paint(model, alpha), paint(model, scaled(plain, 0.5)), atol=1e-5)


def test_a_file_that_changed_is_read_again(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "changing.safetensors"
    first = paint(model, write(path, factors(model, seed=1)))
    second = paint(model, write(path, {**factors(model, seed=2), "text_encoder.extra": mx.zeros((1,))}))
    assert np.abs(first - second).max() > 0.01


def not_finite(tensors: Tensors) -> Tensors:
    name = f"{LAYER}.lora_B.weight"
    return {**tensors, name: mx.full(tensors[name].shape, float("nan"))}


def too_wide(tensors: Tensors) -> Tensors:
    return {**tensors, f"{LAYER}.lora_A.weight": mx.zeros((RANK, 7))}


def other_rank(tensors: Tensors) -> Tensors:
    return {**tensors, f"{LAYER}.lora_A.weight": tensors[f"{LAYER}.lora_A.weight"][:-1]}


def no_up(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if "lora_B" not in name}


def beyond(tensors: Tensors) -> Tensors:
    return {name.replace("blocks.0.", "blocks.99."): value for name, value in tensors.items()}


def foreign(tensors: Tensors) -> Tensors:
    return {f"lora_te1_text_model_{number}.lora_up.weight": value for number, value in enumerate(tensors.values())}


BAD: list[tuple[Callable[[Tensors], Tensors], str]] = [
    (not_finite, "holds values that are not finite, in transformer.single_transformer_blocks.0.attn.to_out.lora_B"),
    (too_wide, "single_transformer_blocks.0.attn.to_out is"),
    (other_rank, "single_transformer_blocks.0.attn.to_out is"),
    (no_up, "single_transformer_blocks.0.attn.to_out has no lora_B"),
    (beyond, "was made for another model: 1 of its layers do not fit, single_transformer_blocks.99"),
    (foreign, "belongs to FLUX.2 (its keys are like lora_te1_text_model_0.lora_up.weight"),
    (lambda tensors: {}, "belongs to FLUX.2"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_a_bad_adapter_is_refused_and_the_model_is_what_it_was(
    model: Model, tmp_path: Path, spoil: Callable[[Tensors], Tensors], message: str
) -> None:
    bare = paint(model)
    good = write(tmp_path / "good.safetensors", factors(model, seed=5))
    bad = write(tmp_path / "bad.safetensors", spoil(factors(model)))
    with pytest.raises(LoraInvalid) as caught:
        paint(model, good, bad)
    assert message in caught.value.message
    assert caught.value.code == "LORA_INVALID"
    np.testing.assert_array_equal(paint(model), bare)


def test_a_truncated_adapter_is_refused(model: Model, lora: LoraUse) -> None:
    path = Path(lora.path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LoraInvalid, match="bytes long, its header says"):
        paint(model, lora)


@pytest.mark.parametrize(
    ("name", "error"),
    [("nothing.safetensors", LoraNotFound), ("style.pt", LoraInvalid), ("junk.safetensors", LoraInvalid)],
)
def test_a_file_that_is_no_adapter_is_refused(model: Model, tmp_path: Path, name: str, error: type[MfluxError]) -> None:
    for present in ("style.pt", "junk.safetensors"):
        (tmp_path / present).write_bytes(b"junk")
    with pytest.raises(error):
        paint(model, LoraUse(path=str(tmp_path / name), scale=1.0))


def test_adapters_from_outside_the_allowed_folders_are_refused(tmp_path: Path) -> None:
    model = load_model("flux2-tiny", lora_folders=[tmp_path / "loras"])
    outside = write(tmp_path / "style.safetensors", factors(model))
    with pytest.raises(LoraInvalid, match="is outside the LoRA folders"):
        paint(model, outside)
