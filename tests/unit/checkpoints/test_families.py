"""The table of families: the functions it names, the capabilities of each model, and agreement with docs/models.md."""

import inspect
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import pytest

from mflux_api.checkpoints.capabilities import Capabilities
from mflux_api.checkpoints.families import FAMILIES, SAMPLER, Family, detect_family
from mflux_api.dialects.native.models import ModelCapabilities
from mflux_api.engine.loaded_pipeline import PipelineLoader
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, ModelSpec, find_spec, load_registry
from mflux_api.request import SIDE_STEP, SMALLEST_SIDE
from tests.support.paths import CHECKPOINTS, ROOT
from tests.support.seedvr2 import write_upscaler

DOCUMENT = ROOT / "docs" / "models.md"
KINDS = [(family, variant) for family in FAMILIES.values() for variant in family.capabilities]


def yes(value: bool) -> str:
    return "yes" if value else "-"


def guidance(can: Capabilities) -> str:
    return can.guidance if can.guidance == "fixed" else f"{can.guidance}, {can.default_guidance:g}"


def references(can: Capabilities) -> str:
    found = {None: "yes", 0: "-"}.get(can.references, f"up to {can.references}")
    return f"{found}, seen once" if can.cached_references else found


# Rows of the document's table: a heading and the cell of each kind of model.
LINES: dict[str, Callable[[Capabilities], str]] = {
    "paints from words": lambda can: yes(can.from_words),
    "repaints a picture": lambda can: yes(can.source and not can.enlarges),
    "enlarges a picture": lambda can: yes(can.enlarges),
    "mask": lambda can: yes(can.mask),
    "references": references,
    "LoRAs": lambda can: yes(can.loras),
    "guidance": guidance,
    "negative prompt": lambda can: yes(can.negative_prompt),
    "prompt upsampling": lambda can: yes(can.prompt_upsampling),
    "steps": lambda can: f"always {can.default_steps}" if can.fixed_steps else str(can.default_steps),
    "suits squares of": lambda can: f"{can.native_side} pixels",
    "sides": lambda can: f"{can.size_step} × n, from {can.smallest_side}",
    "sampler": lambda can: ", ".join(can.samplers),
    "quantized to bits": lambda can: ", ".join(map(str, can.bits)) or "-",
}


def table_row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def kind_of(spec: ModelSpec) -> str:
    return FAMILIES[spec.family].variant(spec.facts)


def named() -> list[ModelSpec]:
    """Return the models of the registry without their quantized variants."""
    return [spec for spec in load_registry().values() if spec.quantize is None]


def model_row(spec: ModelSpec) -> str:
    size = "-" if spec.size_gb is None else f"{spec.size_gb:g} GB"
    source = "part of this project" if spec.repository is None else f"`{spec.repository}`"
    licence = f"{spec.licence}, gated" if spec.gated else spec.licence or "-"
    return table_row(f"`{spec.name}`", f"`{kind_of(spec)}`", source, size, licence)


def table(*rows: str) -> str:
    head, *rest = rows
    return "\n".join([head, table_row(*("---" for _ in head.split(" | "))), *rest])


def capability_table() -> str:
    """As the document must have it."""
    cans = [family.capabilities[variant] for family, variant in KINDS]
    head = table_row("", *(f"`{variant}`" for _, variant in KINDS))
    return table(head, *(table_row(line, *map(cell, cans)) for line, cell in LINES.items()))


def model_table() -> str:
    """As the document must have it."""
    return table(table_row("model", "kind", "repository", "download", "licence"), *map(model_row, named()))


def test_the_document_says_what_each_kind_can_do() -> None:
    assert capability_table() in DOCUMENT.read_text(encoding="utf-8")


def test_the_document_lists_every_model() -> None:
    assert model_table() in DOCUMENT.read_text(encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_family_names_functions_of_the_engine_that_there_are(family: Family) -> None:
    load = inspect.signature(resolve_name(family.load)).parameters
    expected = inspect.signature(PipelineLoader.__call__).parameters
    assert list(load)[1:] == list(expected)[2:]
    assert family.save is None or callable(resolve_name(family.save))


@pytest.mark.parametrize(("family", "variant"), KINDS, ids=[variant for _, variant in KINDS])
def test_every_kind_has_a_model_that_can_be_asked_for(family: Family, variant: str) -> None:
    assert any(spec.family == family.name and kind_of(spec) == variant for spec in named())


@pytest.mark.parametrize(("family", "variant"), KINDS, ids=[variant for _, variant in KINDS])
def test_what_a_kind_can_do_agrees_with_itself_and_with_what_requests_allow(family: Family, variant: str) -> None:
    can = family.capabilities[variant]
    assert can.samplers == (SAMPLER,)
    assert not (can.guidance == "fixed" and (can.negative_prompt or can.default_guidance != 1.0))
    assert can.source or not (can.mask or can.enlarges)
    # Requests are validated before their model is known.
    assert can.size_step % SIDE_STEP == 0
    assert can.smallest_side >= SMALLEST_SIDE


def test_clients_are_told_of_every_capability_that_is_no_default() -> None:
    defaults = {"default_guidance", "default_steps", "few_steps", "prompt_tokens"}
    assert set(ModelCapabilities.model_fields) == set(Capabilities.__dataclass_fields__) - defaults


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("flux2-tiny", "klein"),
        ("flux2-tiny-base", "klein-base"),
        ("flux2-klein-9b-kv-4-bit", "klein-kv"),
        ("flux2-klein-base-4b-mlx-8bit", "klein-base"),
        ("flux2-dev-8-bit", "dev"),
        ("seedvr2", "seedvr2"),
    ],
)
def test_a_model_is_of_the_kind_that_the_registry_says(name: str, kind: str) -> None:
    assert kind_of(find_spec(name)) == kind


def test_an_entry_has_its_own_defaults_in_place_of_its_kinds() -> None:
    can = find_spec("flux2-tiny-base").capabilities
    assert (can.default_steps, can.default_guidance, can.native_side) == (8, 2.0, 256)
    assert find_spec("flux2-klein-base-4b").capabilities == FAMILIES["flux2"].capabilities["klein-base"]


@pytest.mark.parametrize("name", ["flux2-tiny-4-bit", "flux2-klein-4b-mlx-4bit"])
def test_a_quantized_model_is_not_offered_quantized_again(name: str) -> None:
    assert find_spec(name).capabilities.bits == ()
    assert f"{name}-8-bit" not in load_registry()


def test_a_folder_is_of_the_family_whose_files_it_has(tmp_path: Path) -> None:
    assert detect_family(EMBEDDED_MODELS_DIR / "flux2-tiny").name == "flux2"
    assert detect_family(write_upscaler(tmp_path / "enlarger")).name == "seedvr2"
    assert detect_family(tmp_path / "nothing").name == "flux2"


def test_a_folder_says_what_the_registry_does_not() -> None:
    family, spec = FAMILIES["flux2"], find_spec("flux2-tiny-base")
    dev = CHECKPOINTS / "dev"
    assert family.read_capabilities(dev, ModelSpec(name="mine").facts).guidance == "embedded"
    assert family.read_capabilities(EMBEDDED_MODELS_DIR / spec.folder, spec.facts).guidance == "cfg"
    assert not family.read_capabilities(EMBEDDED_MODELS_DIR / spec.folder, spec.facts).prompt_upsampling
