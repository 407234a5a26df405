"""Text encoders as language models: the tokens equal transformers', with and without a key-value cache."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.language_model import (
    MAX_INPUT_TOKENS,
    MAX_NEW_TOKENS,
    complete_decoder_config,
    find_language_model,
)
from mflux_api.checkpoints.memory_estimate import estimate_upsampling_bytes
from mflux_api.engine.flux2.loading import NetworkLoader
from mflux_api.engine.flux2.prompt_upsampling import TextGenerator
from mflux_api.engine.flux2.tensors import list_parameters
from mflux_api.engine.model import load_model
from mflux_api.engine.precision import choose_precision
from mflux_api.errors import ModelUnsupported
from tests.engine.flux2.test_gguf import text_encoder
from tests.support.estimating import estimate_small
from tests.support.marks import slow_but
from tests.support.paths import CHECKPOINTS, REFERENCE
from tests.support.stored_files import Kind

WRITINGS: list[dict[str, Any]] = json.loads((REFERENCE / "writings.json").read_text())
# One of Qwen3's kind and one of Mistral's.
SHORT = (WRITINGS[0], WRITINGS[4])
NAMES = ["klein", "odd", "dev", "dev-odd"]
NOTHING: frozenset[int] = frozenset()


def loader(name: str | Path, bits: int | None = None) -> NetworkLoader:
    return NetworkLoader(Checkpoint.read(CHECKPOINTS / name), bits, choose_precision("float32"))


def writer(loaded: NetworkLoader) -> TextGenerator:
    return TextGenerator(
        loaded.load_text_encoder(), loaded.load_language_model_tail(find_language_model(loaded.checkpoint)), mx.float32
    )


@pytest.fixture(scope="module")
def writers() -> Callable[[str], TextGenerator]:
    return functools.cache(lambda name: writer(loader(name)))


def title(writing: dict[str, Any]) -> str:
    return f"{writing['checkpoint']}-{len(writing['ids'])}"


@pytest.mark.parity
@pytest.mark.parametrize("writing", slow_but(WRITINGS, *SHORT), ids=title)
def test_the_tokens_are_those_of_transformers(writers: Callable[[str], TextGenerator], writing: dict[str, Any]) -> None:
    tokens = writing["tokens"]
    assert list(writers(writing["checkpoint"]).generate_tokens(writing["ids"], NOTHING, len(tokens))) == tokens


@pytest.mark.parity
@pytest.mark.parametrize("writing", slow_but(WRITINGS, *SHORT), ids=title)
@pytest.mark.parametrize("begun", slow_but([1, 40], 40))
def test_after_any_tokens_the_likeliest_is_that_of_transformers(
    writers: Callable[[str], TextGenerator], writing: dict[str, Any], begun: int
) -> None:
    write, crowd = writers(writing["checkpoint"]), writing["crowd"]
    decoder = write.make_decoder(len(crowd))
    found = {begun - 1: write.predict_next(decoder, crowd[:begun])}
    for place in range(begun, len(crowd)):
        found[place] = write.predict_next(decoder, crowd[place : place + 1])
    expected = {int(place): token for place, token in writing["likeliest"].items() if int(place) >= begun - 1}
    assert {place: found[place] for place in expected} == expected


@pytest.mark.parametrize("writing", slow_but(WRITINGS[::2], *SHORT), ids=title)
def test_nothing_changes_when_all_is_computed_anew_for_each_token(
    writers: Callable[[str], TextGenerator], writing: dict[str, Any]
) -> None:
    write, ids = writers(writing["checkpoint"]), list(writing["ids"])
    for expected in writing["tokens"][:16]:
        token = write.predict_next(write.make_decoder(len(ids)), ids)
        assert token == expected
        ids.append(token)


@pytest.mark.parametrize("writing", WRITINGS[:1], ids=title)
def test_writing_ends_before_a_stop_and_at_the_limit(
    writers: Callable[[str], TextGenerator], writing: dict[str, Any]
) -> None:
    write, ids, tokens = writers(writing["checkpoint"]), writing["ids"], writing["tokens"]
    stop = tokens[-1]
    assert list(write.generate_tokens(ids, {stop}, 48)) == tokens[: tokens.index(stop)]
    assert list(write.generate_tokens(ids, {tokens[0]}, 48)) == []
    assert list(write.generate_tokens(ids, NOTHING, 5)) == tokens[:5]


@pytest.mark.parametrize("name", slow_but(NAMES, "klein", "dev"))
@pytest.mark.parametrize("bits", [None, 8])
def test_what_is_loaded_for_it_is_estimated(name: str, bits: int | None) -> None:
    loaded = loader(name, bits)
    language = find_language_model(loaded.checkpoint)
    held = sum(array.nbytes for array in list_parameters(loaded.load_language_model_tail(language)).values())
    estimated = estimate_upsampling_bytes(loaded.checkpoint, bits, 4) - 4 * language.cached_values
    assert held == pytest.approx(estimated, rel=0.02)
    head = complete_decoder_config(loaded.checkpoint.text_encoder.config)
    assert language.cached_values == (
        2 * head["num_hidden_layers"] * head["num_key_value_heads"] * head["head_dim"]
    ) * (MAX_INPUT_TOKENS + MAX_NEW_TOKENS)


def test_upsampling_takes_its_room_beside_the_text_encoder_and_not_beside_the_painting() -> None:
    folder = CHECKPOINTS / "klein"
    plain, more = (estimate_small(folder, upsample=upsample) for upsample in (False, True))
    assert (plain.upsampling, more.upsampling > 0) == (0, True)
    weights = plain.transformer + plain.text_encoder + plain.vae
    assert more.peak(low_ram=False) == weights + max(more.upsampling, more.activations)
    assert more.peak(low_ram=True) == plain.transformer + plain.vae + max(
        more.text_encoder + more.upsampling, more.activations
    )


@pytest.mark.parametrize("kind", slow_but([Kind.F16, Kind.Q8_0], Kind.Q8_0), ids=lambda kind: kind.name)
def test_a_text_encoder_in_a_gguf_file_writes_too(tmp_path: Path, kind: Kind) -> None:
    shutil.copytree(CHECKPOINTS / "klein", tmp_path / "klein")
    other = text_encoder(tmp_path / "klein", "text_encoder.gguf", kind)
    # The first folder now has the values that the file represents.
    one, two = (writer(loader(folder)) for folder in (tmp_path / "klein", other))
    ids = WRITINGS[0]["ids"]
    assert list(one.generate_tokens(ids, NOTHING, 24)) == list(two.generate_tokens(ids, NOTHING, 24))


def without_head(folder: Path) -> None:
    path = folder / "text_encoder" / "model.safetensors"
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    mx.eval(tensors)
    mx.save_safetensors(str(path), {name: each for name, each in tensors.items() if "lm_head" not in name})


def declare_no_language_model(folder: Path) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "language_model": False}))


def not_tied(folder: Path) -> None:
    path = folder / "text_encoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_word_embeddings": False}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("klein", without_head),
        ("klein", declare_no_language_model),
        ("dev", declare_no_language_model),
        ("dev", not_tied),
        ("odd", not_tied),
    ],
)
def test_a_text_encoder_that_cannot_write_says_so(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    folder = Path(shutil.copytree(CHECKPOINTS / name, tmp_path / name))
    damage(folder)
    with pytest.raises(ModelUnsupported, match="prompt_upsampling is not available with this model: "):
        estimate_small(folder, upsample=True)
    assert estimate_small(folder).upsampling == 0


def test_a_folder_that_was_saved_cannot_write(tmp_path: Path) -> None:
    load_model(CHECKPOINTS / "klein").save(tmp_path / "saved")
    with pytest.raises(ModelUnsupported, match="only what prompts are read with"):
        find_language_model(Checkpoint.read(tmp_path / "saved"))


def test_the_embedded_models_text_encoder_is_no_language_model() -> None:
    with pytest.raises(ModelUnsupported, match="was trained to read prompts and cannot write"):
        list(load_model("flux2-tiny").pipeline.upsample_prompt("a red circle", edit=False))
