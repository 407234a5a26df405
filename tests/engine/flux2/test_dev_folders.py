"""FLUX.2-dev folders: complete, partial, damaged, with and without configs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mflux_api.engine.model import Model, load_model
from mflux_api.errors import MfluxError, ModelIncomplete
from tests.engine.flux2.test_dev import DEV, pixels
from tests.support.estimating import estimate_small


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(DEV)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEV, tmp_path / "dev"))


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        (["text_encoder"], ["text_encoder"]),
        (["text_encoder", "tokenizer"], ["text_encoder", "tokenizer"]),
        (["vae"], ["vae"]),
    ],
)
@pytest.mark.parametrize("indexed", [True, False])
def test_a_partial_folder_says_what_is_missing_and_where_it_is(
    folder: Path, gone: list[str], missing: list[str], indexed: bool
) -> None:
    for part in gone:
        shutil.rmtree(folder / part)
    if not indexed:
        (folder / "model_index.json").unlink()
    for asking in (load_model, lambda path: estimate_small(path, 4)):
        with pytest.raises(ModelIncomplete) as caught:
            asking(folder)
        assert caught.value.details["missing"] == missing
        for words in ("black-forest-labs/FLUX.2-dev", "HF_TOKEN", *(f"'{name}/*'" for name in missing)):
            assert words in caught.value.message


def test_a_folder_without_an_index_is_dev_by_its_guidance_embedding(folder: Path, model: Model) -> None:
    (folder / "model_index.json").unlink()
    np.testing.assert_array_equal(pixels(load_model(folder), guidance=4.0), pixels(model, guidance=4.0))


def test_a_config_that_does_not_mention_the_guidance_embedding_has_it(folder: Path, model: Model) -> None:
    path = folder / "transformer" / "config.json"
    config = json.loads(path.read_text())
    del config["guidance_embeds"]
    path.write_text(json.dumps(config))
    np.testing.assert_array_equal(pixels(load_model(folder), guidance=4.0), pixels(model, guidance=4.0))


@pytest.mark.parametrize("part", ["text_encoder", "transformer"])
def test_a_damaged_part_is_refused_in_words(folder: Path, part: str) -> None:
    (path,) = (folder / part).glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MfluxError, match="Download it again"):
        load_model(folder)
