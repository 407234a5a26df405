"""Pictures equal diffusers' to 1e-4 of the range in float32. tools/reference/make.py made the references."""

import functools
import json
import shutil
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest

from mflux_api.engine.flux2 import latents
from mflux_api.engine.model import Model, load_model
from mflux_api.request import LoraUse
from tests.reference.cases import CASES, Case
from tests.support.paths import REFERENCE

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4
OVERRIDES = {
    "klein": {},
    "inpaint": {},
    "inpaint-base": {"is_distilled": False},
    "base": {"is_distilled": False},
    "kv": {"_class_name": "Flux2KleinKVPipeline"},
    "dev": {},
}


# One checkpoint as each pipeline of [klein], an edit and an adapter; and dev.
FAST = {"text", "base-negative", "edit-2", "inpaint-part", "kv-1", "lora-diffusers", "dev"}


@pytest.fixture(scope="module")
def load_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Model]:
    """A function that loads a random checkpoint as a kind of pipeline, each once."""

    @functools.cache
    def load(checkpoint: str, kind: str) -> Model:
        folder = tmp_path_factory.mktemp("checkpoints") / kind
        shutil.copytree(REFERENCE / "checkpoints" / checkpoint, folder)
        path = folder / "model_index.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | OVERRIDES[kind]))
        return load_model(folder, precision="float32")

    return load


def mark_case(case: Case) -> object:
    """Return a parameter of a test: `make test` has one case of each kind of pipeline, on one checkpoint."""
    return case if case.name in FAST else pytest.param(case, marks=pytest.mark.slow)


def lora(name: str, scale: float) -> LoraUse:
    return LoraUse(path=str(REFERENCE / "loras" / f"{name}.safetensors"), scale=scale)


def difference(model: Model, case: Case) -> float:
    """Return the largest difference between the model's picture and the reference, on the scale 0..1."""
    inpainting = case.pipeline.startswith("inpaint")
    picture = model.generate(
        case.prompt,
        negative_prompt=case.negative,
        width=case.width,
        height=case.height,
        steps=case.steps,
        guidance=case.guidance,
        seeds=(0,),
        latents=None if case.seeded else case.latents,
        images=case.images,
        image=case.source if inpainting else None,
        mask=case.mask if inpainting else None,
        strength=case.strength,
        loras=[lora(*each) for each in case.loras],
    )[0]
    return float(np.abs(picture.array - case.expected()).max())


@pytest.mark.parametrize("case", [mark_case(case) for case in CASES], ids=lambda case: case.name)
def test_the_picture_is_the_references(
    load_pipeline: Callable[[str, str], Model], case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "make_noise", lambda *_: mx.array(case.latents))
    assert difference(load_pipeline(case.checkpoint, case.pipeline), case) <= TOLERANCE


@pytest.mark.parametrize("checkpoint", ["klein", "odd", "dev", "dev-odd"])
def test_no_two_references_are_the_same_picture(checkpoint: str) -> None:
    """Otherwise a feature without effect would pass."""
    plain = next(case for case in CASES if case.checkpoint == checkpoint)
    for case in CASES:
        same_size = (case.width, case.height) == (plain.width, plain.height)
        if case.checkpoint == checkpoint and case.name not in {plain.name, *EQUAL} and same_size:
            assert np.abs(case.expected() - plain.expected()).max() > 100 * TOLERANCE, case.name


# Without references the KV pipeline equals the plain one, and so does a base model at guidance 1.
EQUAL = {"kv-text", "base-guidance-1"}
