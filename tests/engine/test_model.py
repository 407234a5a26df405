"""The library API."""

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mflux_api
from mflux_api.engine.model import Model
from mflux_api.errors import InvalidRequest, ModelNotFound
from tests.support.stored_files import Kind, copy_klein, in_their_names, load_weights, write_gguf


def test_generate_image_is_called_as_documented() -> None:
    names = list(inspect.signature(mflux_api.generate_image).parameters)
    assert names == ["prompt", "seed", "steps", "width", "height", "local_encoder", "input_image", "strength"]


def test_generate_image_returns_the_picture_its_seed_and_timings() -> None:
    image, seed, timings = mflux_api.generate_image("a red circle", seed=7, steps=1, width=64, height=64)
    assert image.size == (64, 64)
    assert seed == 7
    assert {"encoding", "diffusion", "total"} <= timings.keys()


def test_generate_image_repaints_a_picture() -> None:
    source = Image.new("RGB", (64, 64), "red")
    image, _, _ = mflux_api.generate_image("x", width=64, height=64, input_image=source, strength=0)
    assert np.array_equal(np.asarray(image), np.asarray(source))


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the last loaded model, so that no other test gets it as the default."""
    monkeypatch.setattr("mflux_api.engine.model._last_loaded", {})


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("documented", [{}, {"local_encoder": True}, {"full_model": True}], ids=str)
def test_a_model_is_loaded_as_documented(documented: dict[str, bool]) -> None:
    assert mflux_api.load_model(**documented).spec.name == "flux2-tiny"  # type: ignore[arg-type]


@pytest.mark.usefixtures("forgetful")
def test_a_gguf_model_is_loaded_by_its_kind_and_painted_with(tmp_path: Path) -> None:
    folder = copy_klein(tmp_path / "models" / "klein")
    write_gguf(folder / "klein-Q8_0.gguf", in_their_names(load_weights(folder / "transformer")), lambda _: Kind.Q8_0)
    shutil.rmtree(folder / "transformer")
    loaded = mflux_api.load_model(gguf_quant="q8", models_dir=tmp_path / "models")
    assert loaded.spec.name == "klein-Q8_0"
    image, _, _ = mflux_api.generate_image("a red circle", seed=7, steps=1, width=64, height=64)
    same = loaded.generate("a red circle", seeds=(7,), steps=1, width=64, height=64)[0]
    assert np.array_equal(np.asarray(image), np.asarray(same.image))


def test_a_kind_of_gguf_that_is_not_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"No GGUF file under .* says q4"):
        mflux_api.load_model(gguf_quant="q4", models_dir=tmp_path)


def test_a_full_model_is_not_quantized() -> None:
    with pytest.raises(InvalidRequest, match="full_model"):
        mflux_api.load_model("flux2-tiny", full_model=True, quantize=4)


def test_without_a_seed_each_picture_has_its_own(tiny: Model) -> None:
    seeds = {tiny.generate("x", width=64, height=64, steps=1)[0].seed for _ in range(3)}
    assert len(seeds) == 3


def test_a_lora_is_named_as_on_the_command_line(tiny: Model) -> None:
    with pytest.raises(mflux_api.MfluxError, match="There is no LoRA 'nothing'"):
        tiny.generate("x", loras=["nothing:0.5"])


def test_importing_the_package_imports_no_mlx() -> None:
    code = "import sys, mflux_api; assert not {'mlx.core', 'transformers'} & sys.modules.keys(); mflux_api.load_model"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mflux_api' has no attribute 'nothing'"):
        _ = mflux_api.nothing
