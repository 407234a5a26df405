import subprocess
import sys

import mlx.core as mx
import pytest
from mflux.models.common.config import ModelConfig

from mflux_api.engine.precision import BY_DEVICE, choose_precision, device_name, use_dtype


def test_the_device_chooses_and_the_user_may_choose_otherwise() -> None:
    assert choose_precision("auto") == BY_DEVICE[device_name()]
    assert choose_precision("bfloat16").dtype == mx.bfloat16


def test_cpus_compute_in_float32_and_gpus_in_bfloat16() -> None:
    assert {name: chosen.dtype for name, chosen in BY_DEVICE.items()} == {
        "cpu": mx.float32,
        "metal": mx.bfloat16,
        "cuda": mx.bfloat16,
    }


def test_the_global_type_is_put_back_even_after_an_error() -> None:
    before = ModelConfig.precision
    seen = []

    def fail() -> None:
        with use_dtype(mx.float32):
            seen.append(ModelConfig.precision)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert seen == [mx.float32]
    assert ModelConfig.precision == before


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has its own BLAS")
def test_importing_the_engine_loads_openblas_before_mlx() -> None:
    code = "import mflux_api.engine, sys; assert 'mlx.core' not in sys.modules; print(open('/proc/self/maps').read())"
    maps = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "libopenblas" in maps
