"""Input of FLUX.2-dev's text encoder: chat template, special tokens and padding side."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mflux_api.engine.flux2.chat_templates import MistralChatTemplate
from mflux_api.engine.model import load_model
from mflux_api.errors import MfluxError, ModelIncomplete
from mflux_api.home import MODELS_DIR
from mflux_api.models.registry import resolve_model
from tests.support.paths import CHECKPOINTS

DEV = CHECKPOINTS / "dev"
SYSTEM = (
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object "
    "relationships, object\nattribution and actions without speculation."
)
FOX = (
    "A photorealistic photo of a red fox standing on a mossy rock in a misty forest at dawn, "
    "volumetric light, 85mm lens"
)
# Token ids of the published tokenizer, from <s>[SYSTEM_PROMPT] to [/INST].
FOX_TOKENS = [
    *(1, 17, 4568, 1584, 1420, 26554, 1455, 12738, 2314, 3937, 38340, 1046, 3213, 5628, 37253, 11688, 30557, 1408),
    *(3481, 14608, 1044, 3481, 1010, 2452, 5604, 1321, 10636, 3816, 67813, 1046, 18, 3, 1065, 102244, 1279, 5744),
    *(16649, 1307, 1261, 4804, 94137, 15866, 1408, 1261, 119766, 1121, 9091, 1294, 1261, 11692, 1121, 17144, 1513),
    *(54507, 1044, 100989, 4391, 1044, 1032, 1056, 1053, 8383, 20993, 4),
]


def published_tokenizer() -> Path | None:
    """Return the folder in MFLUX_TEST_DEV_TOKENIZER, or that of a flux2-dev on this machine; None without either."""
    named = os.environ.get("MFLUX_TEST_DEV_TOKENIZER")
    try:
        return Path(named) if named else resolve_model("flux2-dev", MODELS_DIR).folder / "tokenizer"
    except MfluxError:
        return None


PUBLISHED = published_tokenizer()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEV / "tokenizer", tmp_path / "tokenizer"))


def configure(folder: Path, **changes: Any) -> None:
    """Change keys of tokenizer_config.json; None removes a key."""
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def tokens(chat: MistralChatTemplate, prompt: str) -> list[str]:
    read = chat.tokenize(prompt)
    kept = [token for token, real in zip(read["input_ids"], read["attention_mask"], strict=True) if real]
    found: list[str] = chat.tokenizer.convert_ids_to_tokens(kept)
    return found


@pytest.mark.parametrize("prompt", ["a red circle", "", "  two  spaces \n", "日本語 🌅", "{{ bos_token }}"])
def test_a_prompt_is_put_into_the_references_template(prompt: str) -> None:
    rendered = MistralChatTemplate(DEV / "tokenizer", 512).render(prompt)
    assert rendered == f"<s>[SYSTEM_PROMPT]{SYSTEM}[/SYSTEM_PROMPT][INST]{prompt}[/INST]"


def test_image_tokens_are_taken_out_of_a_prompt() -> None:
    assert MistralChatTemplate(DEV / "tokenizer", 512).render("a [IMG]b[IMG]").endswith("[INST]a b[/INST]")


@pytest.mark.skipif(PUBLISHED is None, reason="no published tokenizer of FLUX.2-dev on this machine")
def test_the_published_tokenizer_gives_the_published_tokens() -> None:
    assert PUBLISHED is not None
    read = MistralChatTemplate(PUBLISHED, 512).tokenize(FOX)
    kept = [token for token, real in zip(read["input_ids"], read["attention_mask"], strict=True) if real]
    assert kept == FOX_TOKENS
    assert set(read["input_ids"]) - set(kept) == {11}


def test_special_tokens_have_their_published_places() -> None:
    tokenizer = MistralChatTemplate(DEV / "tokenizer", 512).tokenizer
    named = ["<s>", "[INST]", "[/INST]", "<pad>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
    assert tokenizer.convert_tokens_to_ids(named) == [1, 3, 4, 11, 17, 18]


def test_the_first_token_comes_once() -> None:
    assert tokens(MistralChatTemplate(DEV / "tokenizer", 512), "a")[:2] == ["<s>", "[SYSTEM_PROMPT]"]


def test_the_first_token_is_added_to_a_template_without_it(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("{{- bos_token }}", ""))
    assert tokens(MistralChatTemplate(folder, 512), "a")[:2] == ["<s>", "[SYSTEM_PROMPT]"]


@pytest.mark.parametrize(
    ("said", "written", "expected"),
    [
        ("left", None, "left"),
        ("right", None, "right"),
        (None, None, "left"),
        (None, "Right", "right"),
        ("left", "Right", "left"),
    ],
)
@pytest.mark.parametrize("kind", ["TokenizersBackend", "LlamaTokenizerFast"])
def test_the_padded_side_is_what_the_files_say_or_left(
    folder: Path, said: str | None, written: str | None, expected: str, kind: str
) -> None:
    configure(folder, padding_side=said, tokenizer_class=kind)
    if written:
        path = folder / "tokenizer.json"
        padding = {"strategy": "BatchLongest", "direction": written, "pad_to_multiple_of": None}
        pad = {"pad_id": 11, "pad_type_id": 0, "pad_token": "<pad>"}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"padding": padding | pad}))
    read = MistralChatTemplate(folder, 100).tokenize("a")
    ids = read["input_ids"]
    assert (ids[0], ids[-1]) == ((11, 4) if expected == "left" else (1, 11))
    assert sum(read["attention_mask"]) == len(ids) - ids.count(11)


def test_what_is_too_long_loses_its_end() -> None:
    read = MistralChatTemplate(DEV / "tokenizer", 100).tokenize("word " * 300)
    assert (len(read["input_ids"]), sum(read["attention_mask"]), read["input_ids"][0]) == (100, 100, 1)
    assert 4 not in read["input_ids"]


def test_the_template_may_lie_where_processors_kept_it(folder: Path) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelIncomplete, match="no chat template"):
        MistralChatTemplate(folder, 512)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert MistralChatTemplate(folder, 512).render("a").endswith("[INST]a[/INST]")


@pytest.mark.parametrize(("prompt", "word"), [("a big object", "object"), ("[IMG]a[IMG] circle", "circle")])
def test_emphasis_weighs_words_of_the_prompt_and_none_of_the_system_message(prompt: str, word: str) -> None:
    conditioning = load_model(DEV).pipeline.prompt_encoder
    start = prompt.index(word)
    factors = np.array(conditioning.make_token_weights(prompt, ((start, start + len(word), 2.0),)))[0, :, 0]
    read = conditioning.chat_template.tokenize(prompt)
    weighed = [places for places, factor in zip(read["offset_mapping"], factors, strict=True) if factor == 2]
    rendered = conditioning.chat_template.render(prompt)
    assert "".join(rendered[left:right] for left, right in weighed).strip() == word
    assert weighed[0][0] > rendered.index("[INST]")
