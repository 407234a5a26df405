"""FLUX.2-dev's text encoder: hidden states equal transformers' to 1e-5 in float32, padding rows included."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.language_model import complete_decoder_config
from mflux_api.engine.flux2.mistral import MistralEncoder
from mflux_api.engine.model import Model, load_model
from mflux_api.errors import ModelUnsupported
from tests.reference.cases import ENCODINGS, ROWS, Encoding
from tests.support.paths import CHECKPOINTS

TOLERANCE = 1e-5
SIZES = {
    "model_type": "mistral",
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    return {name: load_model(CHECKPOINTS / name, precision="float32") for name in ("dev", "dev-odd")}


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that the test may change."""
    return Path(shutil.copytree(CHECKPOINTS / "dev", tmp_path / "dev"))


def rewrite(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Rename the text encoder's tensors; drop those renamed to None."""
    path = folder / "text_encoder" / "model.safetensors"
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    # MLX reads lazily: evaluate before the file is overwritten.
    mx.eval(tensors)
    mx.save_safetensors(str(path), {new: value for name, value in tensors.items() if (new := rename(name))})


@pytest.mark.parity
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
def test_a_prompt_has_the_references_tokens_and_states(models: dict[str, Model], encoding: Encoding) -> None:
    conditioning = models[encoding.checkpoint].pipeline.prompt_encoder
    mask, states = encoding.expected()
    np.testing.assert_array_equal(np.array(conditioning.tokenize(encoding.prompt)[1])[0], mask)
    found = np.array(conditioning.compute_embedding(encoding.prompt))[0]
    assert found.shape == (len(mask), states.shape[1])
    assert np.abs(found[::-ROWS] - states).max() <= TOLERANCE


def test_rows_of_padding_in_front_are_one_row_and_not_the_rows_of_text(models: dict[str, Model]) -> None:
    conditioning = models["dev"].pipeline.prompt_encoder
    states, mask = (
        np.array(conditioning.compute_embedding("a circle"))[0],
        np.array(conditioning.tokenize("a circle")[1])[0],
    )
    assert not mask[0]
    assert mask[-1]
    assert (states[mask == 0] == states[0]).all()
    assert np.abs(states[mask == 1] - states[0]).max(axis=-1).min() > 0.01


def test_rows_of_text_do_not_depend_on_how_much_padding_there_is(models: dict[str, Model]) -> None:
    encoder = models["dev"].pipeline.prompt_encoder.get_encoder()
    ids = mx.array([[1, 17, 40, 41, 18, 3, 42, 4]])
    padded = mx.concatenate([mx.full((1, 30), 11), ids], axis=1)
    mask = mx.array([[0] * 30 + [1] * 8])
    alone = np.array(encoder(ids, mx.ones_like(ids)))
    assert np.abs(np.array(encoder(padded, mask))[:, 30:] - alone).max() <= TOLERANCE


def test_a_row_that_sees_nothing_is_finite() -> None:
    encoder = MistralEncoder(SIZES, (1, 2))
    ids = mx.array([[11, 11, 11]])
    assert np.isfinite(np.array(encoder(ids, mx.zeros_like(ids)))).all()


def test_only_the_layers_that_are_needed_are_there(models: dict[str, Model]) -> None:
    encoder = models["dev"].pipeline.prompt_encoder.get_encoder()
    assert isinstance(encoder, MistralEncoder)
    assert len(encoder.layers) == 30
    assert "norm" not in encoder


@pytest.mark.parametrize("prefix", ["model.language_model.", "model.", ""])
def test_the_decoder_is_found_under_any_of_transformers_names(dev: Path, models: dict[str, Model], prefix: str) -> None:
    rewrite(dev, lambda name: name.replace("language_model.model.", prefix))
    expected = np.array(models["dev"].pipeline.prompt_encoder.compute_embedding("a star"))
    np.testing.assert_array_equal(
        np.array(load_model(dev).pipeline.prompt_encoder.compute_embedding("a star")), expected
    )


def test_what_is_not_needed_may_be_missing(dev: Path, models: dict[str, Model]) -> None:
    unused = ("vision_tower", "multi_modal", "language_model.model.norm", "language_model.model.layers.30.")
    rewrite(dev, lambda name: None if name.startswith(unused) else name)
    expected = np.array(models["dev"].pipeline.prompt_encoder.compute_embedding("a star"))
    np.testing.assert_array_equal(
        np.array(load_model(dev).pipeline.prompt_encoder.compute_embedding("a star")), expected
    )


def test_the_rotary_base_is_read_where_transformers_4_wrote_it(dev: Path, models: dict[str, Model]) -> None:
    path = dev / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["rope_theta"] = config["text_config"].pop("rope_parameters")["rope_theta"]
    path.write_text(json.dumps(config))
    expected = np.array(models["dev"].pipeline.prompt_encoder.compute_embedding("a star"))
    np.testing.assert_array_equal(
        np.array(load_model(dev).pipeline.prompt_encoder.compute_embedding("a star")), expected
    )


def test_a_config_that_leaves_out_the_decoder_means_mistral_small_3() -> None:
    config = complete_decoder_config({"model_type": "mistral3"})
    assert (config["hidden_size"], config["num_hidden_layers"], config["head_dim"]) == (5120, 40, 128)


@pytest.mark.parametrize("change", [{"hidden_act": "gelu"}, {"rope_parameters": {"rope_type": "yarn"}}])
def test_a_decoder_of_another_kind_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelUnsupported, match="not supported"):
        MistralEncoder(SIZES | change, (1, 2))


def test_more_states_than_layers_are_refused() -> None:
    with pytest.raises(ModelUnsupported, match="with 4 layers"):
        MistralEncoder(SIZES, (1, 5))


def test_dev_stacks_the_states_of_layers_10_20_and_30() -> None:
    assert Checkpoint.read(CHECKPOINTS / "dev").out_layers == (10, 20, 30)
