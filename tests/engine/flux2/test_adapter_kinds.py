"""Every kind of adapter gives the weight that its formula, computed with numpy, gives."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from mflux_api.checkpoints.adapter_names import LayerNames
from mflux_api.checkpoints.tensor_names import INNER, OUTER
from mflux_api.engine.flux2.adapter_layers import read_shape, read_weight
from mflux_api.engine.flux2.lora import AdapterSet
from mflux_api.engine.model import load_model
from mflux_api.errors import LoraInvalid
from mflux_api.request import LoraUse

Array = Any
Tensors = Mapping[str, Array]
LAYER = "single_transformer_blocks.0.attn.to_out"
BFL = "diffusion_model.single_blocks.0.linear2"
QKV = "diffusion_model.double_blocks.0.img_attn.qkv"
PARTS = [f"transformer_blocks.0.attn.to_{part}" for part in "qkv"]
ROWS, COLUMNS, WIDTH, RANK = 192, 768, 192, 4
NUMBERS = np.random.default_rng(0)
DTYPES = {"float32": "F32", "float16": "F16", "float64": "F64", "uint8": "U8", "int64": "I64"}


def random(*shape: int) -> Array:
    return (NUMBERS.standard_normal(shape) * 0.3).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Stored:
    """Numbers in a format that numpy does not have, as integers."""

    bits: Array
    dtype: str


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> str:
    head: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    blob = b""
    for name, value in tensors.items():
        stored = value if isinstance(value, Stored) else Stored(np.asarray(value), DTYPES[np.asarray(value).dtype.name])
        array = np.ascontiguousarray(stored.bits)
        end = len(blob) + array.nbytes
        head[name] = {"dtype": stored.dtype, "shape": list(stored.bits.shape), "data_offsets": [len(blob), end]}
        blob += array.tobytes()
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob)
    return str(path)


def lengths(weight: Array, axis: int) -> Array:
    return np.linalg.norm(weight, axis=axis, keepdims=True)


class Fitting:
    """A transformer with adapters, and its own weights as numpy arrays."""

    def __init__(self, adapters: AdapterSet, folder: Path) -> None:
        self.adapters = adapters
        self.folder = folder
        self.number = 0

    def find(self, path: str) -> nn.Module:
        found: nn.Module = dict(self.adapters.transformer.named_modules())[path]
        return found

    def weight(self, path: str) -> Array:
        self.adapters.remove()
        return np.array(read_weight(self.find(path)))

    def write(self, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> str:
        self.number += 1
        return write(self.folder / f"{self.number}.safetensors", tensors, metadata)

    def effect(self, path: str, *uses: tuple[str, float]) -> tuple[Array, Array]:
        """Return the weight and the bias that a layer has with these adapters."""
        self.adapters.apply(tuple(LoraUse(path=file, scale=scale) for file, scale in uses))
        layer = self.find(path)
        columns = COLUMNS if path == LAYER else WIDTH
        bias = layer(mx.zeros((1, columns)))[0]
        return np.array((layer(mx.eye(columns)) - bias).T), np.array(bias)


@pytest.fixture(scope="module")
def adapters() -> AdapterSet:
    return load_model("flux2-tiny").pipeline.adapters


@pytest.fixture
def fitting(adapters: AdapterSet, tmp_path: Path) -> Iterator[Fitting]:
    yield Fitting(adapters, tmp_path)
    adapters.remove()


DOWN, UP, BIAS = random(RANK, COLUMNS), random(ROWS, RANK), random(ROWS)
UP3 = random(3 * WIDTH, RANK)
SMALL = random(RANK, WIDTH)
A, B, C, D = random(12, 3), random(3, 6), random(16, 2), random(2, 128)
W1, W2 = random(4, 4), random(48, 192)
HADA = {name: random(*shape) for name, shape in (("w1_a", (ROWS, 3)), ("w1_b", (3, COLUMNS)))}
HADA |= {name: random(*shape) for name, shape in (("w2_a", (ROWS, 3)), ("w2_b", (3, COLUMNS)))}
PRODUCT = (HADA["w1_a"] @ HADA["w1_b"]) * (HADA["w2_a"] @ HADA["w2_b"])
DIFF = random(ROWS, COLUMNS)
PEFT = {f"transformer.{LAYER}.lora_A.weight": DOWN, f"transformer.{LAYER}.lora_B.weight": UP}
KOHYA = {f"{BFL}.lora_down.weight": DOWN, f"{BFL}.lora_up.weight": UP}
FLAT = "lora_unet_single_blocks_0_linear2"


def numpy_floats(dtype: str) -> tuple[Tensors, Array]:
    down, up = DOWN.astype(dtype), UP.astype(dtype)
    tensors = {f"{BFL}.lora_down.weight": down, f"{BFL}.lora_up.weight": up}
    return tensors, up.astype(np.float32) @ down.astype(np.float32)


def small_floats(dtype: str, bits: type, decode: Callable[[Array], Array]) -> tuple[Tensors, Array]:
    """Return factors of random bit patterns below 1 in size, and their product."""
    most = {"BF16": 0x3F7F, "F8_E4M3": 0x37, "F8_E5M2": 0x3B}[dtype]
    top = 0x8000 if bits is np.uint16 else 0x80
    factors = [
        NUMBERS.integers(0, most, shape) | top * NUMBERS.integers(0, 2, shape) for shape in (DOWN.shape, UP.shape)
    ]
    down, up = (factor.astype(bits) for factor in factors)
    tensors = {f"{BFL}.lora_down.weight": Stored(down, dtype), f"{BFL}.lora_up.weight": Stored(up, dtype)}
    return tensors, decode(up) @ decode(down)


def decode_e4m3(bits: Array) -> Array:
    """Decode sign, four bits of exponent (bias 7) and three bits of mantissa."""
    exponent, mantissa = (bits >> 3) & 15, bits & 7
    sizes = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent.astype(int) - 7))
    return np.where(bits & 0x80, -sizes, sizes).astype(np.float32)


PLAIN: dict[str, tuple[Tensors, Array]] = {
    "PEFT": (PEFT, UP @ DOWN),
    "kohya with alpha": ({**KOHYA, f"{BFL}.alpha": np.array(2.0)}, UP @ DOWN / 2),
    "alpha as an integer": ({**KOHYA, f"{BFL}.alpha": np.array([2])}, UP @ DOWN / 2),
    "named": (
        {f"transformer.{LAYER}.lora_A.style.weight": DOWN, f"transformer.{LAYER}.lora_B.style.weight": UP},
        UP @ DOWN,
    ),
    "two names": (
        {
            **{f"transformer.{LAYER}.lora_{part}.one.weight": value for part, value in (("A", DOWN), ("B", UP))},
            **{f"transformer.{LAYER}.lora_{part}.two.weight": value for part, value in (("A", DOWN), ("B", 2 * UP))},
        },
        3 * UP @ DOWN,
    ),
    "over one pixel": (
        {f"{BFL}.lora_down.weight": DOWN[..., None, None], f"{BFL}.lora_up.weight": UP[..., None, None]},
        UP @ DOWN,
    ),
    "float16": numpy_floats("float16"),
    "float64": numpy_floats("float64"),
    "bfloat16": small_floats("BF16", np.uint16, lambda bits: (bits.astype(np.uint32) << 16).view(np.float32)),
    "float8_e4m3": small_floats("F8_E4M3", np.uint8, decode_e4m3),
    "float8_e5m2": small_floats(
        "F8_E5M2", np.uint8, lambda bits: (bits.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    ),
    "LoKr": ({f"{BFL}.lokr_w1": W1, f"{BFL}.lokr_w2": W2}, np.kron(W1, W2)),
    "LoKr whole, whose alpha means nothing": (
        {f"{FLAT}.lokr_w1": W1, f"{FLAT}.lokr_w2": W2, f"{FLAT}.alpha": np.array(1e10)},
        np.kron(W1, W2),
    ),
    "LoKr in products": (
        {
            **{f"{FLAT}.lokr_{name}": value for name, value in (("w1_a", A), ("w1_b", B), ("w2_a", C), ("w2_b", D))},
            f"{FLAT}.alpha": np.array(1.0),
        },
        np.kron(A @ B, C @ D) / 3,
    ),
    "LoHa": (
        {**{f"{FLAT}.hada_{name}": value for name, value in HADA.items()}, f"{FLAT}.alpha": np.array(6.0)},
        PRODUCT * 2,
    ),
    "diff": ({f"{BFL}.diff": DIFF}, DIFF),
}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_an_update_is_added_to_the_weight(fitting: Fitting, kind: str, scale: float) -> None:
    tensors, delta = PLAIN[kind]
    expected = fitting.weight(LAYER) + scale * delta
    weight, bias = fitting.effect(LAYER, (fitting.write(tensors), scale))
    np.testing.assert_allclose(weight, expected, atol=2e-5)
    assert not bias.any()


BIASES: dict[str, tuple[Tensors, Array, Array]] = {
    "PEFT": ({**PEFT, f"transformer.{LAYER}.lora_B.bias": BIAS}, UP @ DOWN, BIAS),
    "of both factors": (
        {**KOHYA, f"{BFL}.lora_up.bias": BIAS, f"{BFL}.lora_down.bias": DOWN[:, 0], f"{BFL}.alpha": np.array(2.0)},
        UP @ DOWN / 2,
        (BIAS + UP @ DOWN[:, 0]) / 2,
    ),
    "diff_b": ({**KOHYA, f"{BFL}.diff_b": BIAS, f"{BFL}.alpha": np.array(2.0)}, UP @ DOWN / 2, BIAS),
    "diff and diff_b": ({f"{BFL}.diff": DIFF, f"{BFL}.diff_b": BIAS}, DIFF, BIAS),
    "diff_b alone": ({f"{BFL}.diff_b": BIAS}, np.zeros((ROWS, COLUMNS)), BIAS),
}


@pytest.mark.parametrize("kind", BIASES)
def test_a_bias_is_added_to_the_output(fitting: Fitting, kind: str) -> None:
    tensors, delta, added = BIASES[kind]
    expected = fitting.weight(LAYER) + 0.5 * delta
    weight, bias = fitting.effect(LAYER, (fitting.write(tensors), 0.5))
    np.testing.assert_allclose(weight, expected, atol=2e-5)
    np.testing.assert_allclose(bias, 0.5 * added, atol=1e-5)


ROW_LENGTHS, COLUMN_LENGTHS = np.abs(random(ROWS)) + 0.1, np.abs(random(COLUMNS)) + 0.1
DORA: dict[str, tuple[Tensors, Array, Array, int]] = {
    "PEFT": ({**PEFT, f"transformer.{LAYER}.lora_magnitude_vector": ROW_LENGTHS}, UP @ DOWN, ROW_LENGTHS[:, None], 1),
    "PEFT, named": (
        {
            f"base_model.model.{LAYER}.lora_A.x.weight": DOWN,
            f"base_model.model.{LAYER}.lora_B.x.weight": UP,
            f"base_model.model.{LAYER}.lora_magnitude_vector.x.weight": ROW_LENGTHS,
        },
        UP @ DOWN,
        ROW_LENGTHS[:, None],
        1,
    ),
    "rows": (
        {**KOHYA, f"{BFL}.dora_scale": ROW_LENGTHS[:, None], f"{BFL}.alpha": np.array(2.0)},
        UP @ DOWN / 2,
        ROW_LENGTHS[:, None],
        1,
    ),
    "columns": ({**KOHYA, f"{BFL}.dora_scale": COLUMN_LENGTHS[None]}, UP @ DOWN, COLUMN_LENGTHS[None], 0),
    "LoKr": (
        {f"{FLAT}.lokr_w1": W1, f"{FLAT}.lokr_w2": W2, f"{FLAT}.dora_scale": ROW_LENGTHS[:, None]},
        np.kron(W1, W2),
        ROW_LENGTHS[:, None],
        1,
    ),
    "LoHa": (
        {**{f"{FLAT}.hada_{name}": value for name, value in HADA.items()}, f"{FLAT}.dora_scale": ROW_LENGTHS[:, None]},
        PRODUCT,
        ROW_LENGTHS[:, None],
        1,
    ),
}


@pytest.mark.parametrize("kind", DORA)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_dora_sets_the_lengths_of_the_merged_weight(fitting: Fitting, kind: str, scale: float) -> None:
    tensors, delta, magnitude, axis = DORA[kind]
    plain = fitting.weight(LAYER)
    merged = plain + delta
    expected = plain + scale * (magnitude * merged / lengths(merged, axis) - plain)
    weight, _ = fitting.effect(LAYER, (fitting.write(tensors), scale))
    np.testing.assert_allclose(weight, expected, atol=2e-5)


@pytest.mark.parametrize("kind", ["rows", "columns"])
def test_a_dora_rescales_what_the_adapters_before_it_made(fitting: Fitting, kind: str) -> None:
    tensors, delta, magnitude, axis = DORA[kind]
    first = fitting.write({f"{BFL}.diff": DIFF, f"{BFL}.diff_b": BIAS})
    second = fitting.write(tensors)
    before = fitting.weight(LAYER) + 0.5 * DIFF
    merged = before + delta
    expected = before + 0.8 * (magnitude * merged / lengths(merged, axis) - before)
    weight, bias = fitting.effect(LAYER, (first, 0.5), (second, 0.8))
    np.testing.assert_allclose(weight, expected, atol=5e-5)
    np.testing.assert_allclose(bias, 0.5 * BIAS, atol=1e-5)
    # Another strength of the first adapter changes the lengths that the second one starts from.
    unchanged, _ = fitting.effect(LAYER, (first, 0.0), (second, 0.8))
    merged = fitting.weight(LAYER) + delta
    plain = fitting.weight(LAYER)
    np.testing.assert_allclose(unchanged, plain + 0.8 * (magnitude * merged / lengths(merged, axis) - plain), atol=5e-5)


FUSED: dict[str, tuple[dict[str, Array], Array]] = {
    "LoRA": ({"lora_down.weight": SMALL, "lora_up.weight": UP3}, UP3 @ SMALL),
    "LoKr, split along its first factor": (
        {"lokr_w1": (first := random(6, 4)), "lokr_w2": (second := random(96, 48))},
        np.kron(first, second),
    ),
    "LoKr that cannot be split": (
        {"lokr_w1": (third := random(4, 4)), "lokr_w2": (fourth := random(144, 48))},
        np.kron(third, fourth),
    ),
    "LoHa": (
        {"hada_w1_a": UP3, "hada_w1_b": SMALL, "hada_w2_a": 2 * UP3, "hada_w2_b": SMALL[::-1].copy()},
        (UP3 @ SMALL) * (2 * UP3 @ SMALL[::-1]),
    ),
    "diff": ({"diff": (whole := random(3 * WIDTH, WIDTH))}, whole),
}


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("layer", [QKV, "lora_unet_double_blocks_0_img_attn_qkv"])
@pytest.mark.parametrize("dora", [False, True], ids=["plain", "dora"])
def test_a_fused_update_is_split_into_query_key_and_value(fitting: Fitting, kind: str, layer: str, dora: bool) -> None:
    tensors, delta = FUSED[kind]
    magnitude = np.linspace(0.5, 2, 3 * WIDTH, dtype=np.float32)[:, None]
    more = {f"{layer}.dora_scale": magnitude} if dora else {}
    file = fitting.write({**{f"{layer}.{name}": value for name, value in tensors.items()}, **more})
    for index, path in enumerate(PARTS):
        rows = slice(index * WIDTH, (index + 1) * WIDTH)
        merged = fitting.weight(path) + delta[rows]
        expected = magnitude[rows] * merged / lengths(merged, 1) if dora else merged
        weight, _ = fitting.effect(path, (file, 1.0))
        np.testing.assert_allclose(weight, expected, atol=5e-5)


def test_the_halves_of_the_last_modulation_are_swapped(fitting: Fitting) -> None:
    diff = random(2 * WIDTH, WIDTH)
    expected = fitting.weight("norm_out.linear") + np.roll(diff, WIDTH, 0)
    file = fitting.write({"diffusion_model.final_layer.adaLN_modulation.1.diff": diff})
    weight, _ = fitting.effect("norm_out.linear", (file, 1.0))
    np.testing.assert_allclose(weight, expected, atol=1e-5)


def list_published_names(adapters: AdapterSet) -> list[str]:
    """Return Black Forest Labs' names of all linear layers, as kohya's scripts flatten them."""
    blocks = {"double_blocks": adapters.transformer.transformer_blocks}
    blocks["single_blocks"] = adapters.transformer.single_transformer_blocks
    inner = [
        f"{kind}.{number}.{name}"
        for kind, found in blocks.items()
        for number in range(len(found))
        for name in INNER
        if name.startswith(("img_", "txt_")) == (kind == "double_blocks") and "norm" not in name
    ]
    outer = [name for name in OUTER if not name.startswith("guidance_in")]
    return [f"lora_unet_{name.replace('.', '_')}" for name in (*inner, *outer)]


@pytest.mark.parametrize("kind", ["lokr", "lora"])
def test_a_file_for_every_layer_changes_every_layer(fitting: Fitting, kind: str) -> None:
    names, layers = LayerNames(_list_linear(fitting.adapters)), _list_linear(fitting.adapters)
    tensors: dict[str, Array] = {}
    for name in list_published_names(fitting.adapters):
        targets = names.find_targets(name)
        rows, columns = read_shape(layers[targets[0].path])
        rows *= len(targets)
        if kind == "lora":
            factors = {"lora_down.weight": random(1, columns), "lora_up.weight": random(rows, 1)}
        else:
            factors = {"lokr_w1": random(2, 2), "lokr_w2": random(rows // 2, columns // 2)}
        tensors.update({f"{name}.{part}": value for part, value in {**factors, "alpha": np.array(1.0)}.items()})
    (report,) = fitting.adapters.apply((LoraUse(path=fitting.write(tensors), scale=1.0),))
    assert report.layers == len(layers)
    assert report.keys == report.total_keys == len(tensors)


def _list_linear(adapters: AdapterSet) -> dict[str, nn.Module]:
    adapters.remove()
    return {path: layer for path, layer in adapters.transformer.named_modules() if isinstance(layer, nn.Linear)}


@pytest.mark.parametrize("name", ["query_norm.diff", "query_norm.scale.diff", "query_norm.w_norm"])
def test_a_norms_weight_is_changed(fitting: Fitting, name: str) -> None:
    path = "transformer_blocks.0.attn.norm_q"
    plain = fitting.weight(path)
    diff = random(*plain.shape)
    file = fitting.write({f"diffusion_model.double_blocks.0.img_attn.norm.{name}": diff})
    fitting.adapters.apply((LoraUse(path=file, scale=0.5),))
    x = random(1, len(plain))
    normed = x / np.sqrt((x**2).mean() + 1e-5)
    np.testing.assert_allclose(np.array(fitting.find(path)(mx.array(x))), normed * (plain + 0.5 * diff), rtol=1e-3)


CONFIGS: list[tuple[dict[str, Any], float]] = [
    ({"lora_alpha": 8, "r": RANK}, 2.0),
    ({"lora_alpha": 8, "r": RANK, "use_rslora": True}, 4.0),
    ({"lora_alpha": 8, "r": RANK, "alpha_pattern": {r"single_transformer_blocks\.0\.attn\.to_out": 2}}, 0.5),
    ({"r": RANK}, 1.0),
]


@pytest.mark.parametrize(("config", "unit"), CONFIGS)
def test_pefts_settings_scale_an_adapter(fitting: Fitting, config: dict[str, Any], unit: float) -> None:
    plain = fitting.weight(LAYER)
    header = {"lora_adapter_metadata": json.dumps({f"transformer.{name}": value for name, value in config.items()})}
    (fitting.folder / "adapter_config.json").write_text(json.dumps(config))
    named = {name.replace("transformer.", "base_model.model.", 1): value for name, value in PEFT.items()}
    for file in (fitting.write(PEFT, header), write(fitting.folder / "adapter_model.safetensors", named)):
        weight, _ = fitting.effect(LAYER, (file, 1.0))
        np.testing.assert_allclose(weight, plain + unit * (UP @ DOWN), atol=5e-5)


def test_settings_that_cannot_be_read_are_refused(fitting: Fitting) -> None:
    for text in ("{", '{"transformer.lora_alpha": "much"}'):
        with pytest.raises(LoraInvalid):
            fitting.effect(LAYER, (fitting.write(PEFT, {"lora_adapter_metadata": text}), 1.0))


REFUSED: list[tuple[Tensors, str]] = [
    ({**PEFT, f"transformer.{LAYER}.lora_mid.weight": DOWN}, "unsupported kind"),
    ({**PEFT, "transformer.proj_out.weight": DOWN}, "unsupported kind"),
    ({**PEFT, "transformer.proj_out.oft_blocks": DOWN}, "unsupported kind"),
    ({**PEFT, "unknown.lora_A.weight": DOWN}, "made for another model: 1 of its layers do not fit, unknown"),
    ({**PEFT, "lora_unet_double_blocks_99_img_mod_lin.lora_up.weight": UP}, "made for another model"),
    ({**PEFT, f"transformer.{LAYER}.diff": DIFF}, "mixes diff and lora"),
    ({f"transformer.{LAYER}.lora_B.weight": UP}, "has no lora_A"),
    ({f"{BFL}.lokr_w1": W1}, "has no lokr_w2"),
    ({f"{BFL}.lokr_w1": W1, f"{BFL}.lokr_w2": W2[:-1]}, "is 768x192 in this model"),
    ({f"{BFL}.hada_w1_a": HADA["w1_a"]}, "has no hada_w1_b"),
    ({f"{BFL}.alpha": np.array(1.0)}, "has no update"),
    ({f"{BFL}.dora_scale": ROW_LENGTHS}, "has no update"),
    ({**KOHYA, f"{BFL}.dora_scale": ROW_LENGTHS[:-1]}, "the magnitudes of"),
    ({**KOHYA, f"{BFL}.diff_b": BIAS[:-1]}, "the bias of"),
    ({**KOHYA, f"{BFL}.alpha": np.array([1.0, 2.0])}, "alpha"),
    ({f"{QKV}.lora_down.weight": SMALL, f"{QKV}.lora_up.weight": UP3[:-1]}, "does not fit"),
    ({f"{QKV}.diff": np.zeros((3 * WIDTH, WIDTH)), f"{QKV}.dora_scale": np.ones((1, WIDTH))}, "columns over query"),
    ({f"{BFL}.lora_down.weight": np.full((RANK, COLUMNS), np.nan), f"{BFL}.lora_up.weight": UP}, "not finite"),
    ({"diffusion_model.double_blocks.0.img_attn.norm.query_norm.diff": DIFF}, "norm_q is"),
]


@pytest.mark.parametrize(("tensors", "message"), REFUSED)
def test_what_cannot_be_applied_whole_is_refused(fitting: Fitting, tensors: Tensors, message: str) -> None:
    with pytest.raises(LoraInvalid, match=message):
        fitting.effect(LAYER, (fitting.write(tensors), 1.0))


def test_a_text_encoders_tensors_are_left_out_and_counted(fitting: Fitting, caplog: pytest.LogCaptureFixture) -> None:
    file = fitting.write({**PEFT, "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": DOWN})
    (report,) = fitting.adapters.apply((LoraUse(path=file, scale=1.0),))
    assert (report.keys, report.total_keys, report.layers) == (2, 3, 1)
    assert "1 tensors are not used" in caplog.text


WRONG_FILES = [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
    (b"\n<!DOCTYPE html><html><head>", "web page"),
    (b'{"error": "Invalid credentials"}', "JSON"),
    (b"PK\x03\x04" + bytes(100), "can run code"),
    *((bytes(4096), "zeros"), (b"", "empty")),
]


@pytest.mark.parametrize(("content", "message"), WRONG_FILES)
def test_a_file_that_is_something_else_is_named(fitting: Fitting, content: bytes, message: str) -> None:
    (path := fitting.folder / "style.safetensors").write_bytes(content)
    with pytest.raises(LoraInvalid, match=message):
        fitting.effect(LAYER, (str(path), 1.0))
