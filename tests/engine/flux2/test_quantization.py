import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from mflux_api.engine.flux2.quantization import DequantizingLinear, dequantize_first, quantize
from mflux_api.engine.model import Model, load_model
from tests.support.marks import slow_but


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
@pytest.mark.parametrize("bias", [True, False])
def test_unpacking_first_multiplies_the_same(bits: int, bias: bool) -> None:
    layer = nn.QuantizedLinear(128, 32, bias=bias, group_size=64, bits=bits)
    x = mx.random.normal((3, 128))
    expected = np.array(layer(x))
    dequantize_first(nn.Sequential(layer))
    assert type(layer) is DequantizingLinear
    np.testing.assert_allclose(np.array(layer(x)), expected, atol=1e-5)


def test_rows_that_do_not_divide_stay_as_they_are() -> None:
    module = nn.Sequential(nn.Linear(64, 8), nn.Linear(96, 8), nn.Linear(40, 8))
    quantize(module, 4)
    groups = [getattr(layer, "group_size", None) for layer in module.layers]
    assert groups == [64, 32, None]


def psnr(first: Model, second: Model) -> float:
    """Return the PSNR, in decibels, between two models' pictures of two prompts."""
    prompts = ("a large red circle on a white background", "a sunset over the sea")
    errors = []
    for seed, prompt in enumerate(prompts):
        arrays = [m.generate(prompt, width=128, height=128, steps=4, seeds=(seed,))[0].array for m in (first, second)]
        errors.append(np.mean((arrays[0] - arrays[1]) ** 2))
    return float(10 * np.log10(1 / np.mean(errors)))


FLOORS = {8: 30.0, 6: 25.0, 4: 15.0, 3: 10.0}


@pytest.mark.parametrize("bits", slow_but(FLOORS, 4))
def test_quantized_pictures_stay_near_the_float32_ones(tiny: Model, bits: int) -> None:
    assert psnr(tiny, load_model("flux2-tiny", quantize=bits)) > FLOORS[bits]
