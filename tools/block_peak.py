"""Measure kept and peak memory while loading a mid-size random FLUX.2-dev checkpoint.

python tools/block_peak.py [bfloat16 | float32]
"""

import gc
import json
import shutil
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
from mlx import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mflux_api.checkpoints.checkpoint import Checkpoint  # noqa: E402
from mflux_api.engine.flux2.loading import NetworkLoader  # noqa: E402
from mflux_api.engine.flux2.networks import build_text_encoder, build_transformer  # noqa: E402
from mflux_api.engine.flux2.tensors import list_parameters  # noqa: E402
from mflux_api.engine.precision import choose_precision  # noqa: E402

DEV = ROOT / "tests" / "reference" / "checkpoints" / "dev"
TRANSFORMER = {
    "num_attention_heads": 8,
    "attention_head_dim": 128,
    "axes_dims_rope": [32] * 4,
    "joint_attention_dim": 1536,
    "num_layers": 2,
    "num_single_layers": 10,
}
TEXT = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 4, "num_key_value_heads": 1}
MEBIBYTE = 1024**2


def main(precision: str) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(shutil.copytree(DEV, Path(parent) / "dev"))
        config = configure(folder / "transformer", TRANSFORMER)
        write(folder / "transformer", build_transformer(config))
        text = json.loads((DEV / "text_encoder" / "config.json").read_text())["text_config"]
        config = configure(
            folder / "text_encoder", {"text_config": text | TEXT | {"vocab_size": 8192, "head_dim": 128}}
        )
        write(folder / "text_encoder", build_text_encoder(config, (10, 20, 30)))
        for bits in (4, 8, None):
            for part in ("transformer", "text_encoder"):
                measure(NetworkLoader(Checkpoint.read(folder), bits, choose_precision(precision)), part)


def configure(folder: Path, changes: dict[str, object]) -> dict[str, object]:
    config: dict[str, object] = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return config


def write(folder: Path, module: nn.Module) -> None:
    """Replace the folder's weights with random bfloat16 weights under mflux's names."""
    for path in folder.glob("*.safetensors"):
        path.unlink()
    names = {
        name: (mx.random.normal(value.shape) / 50).astype(mx.bfloat16)
        for name, value in list_parameters(module).items()
    }
    mx.save_safetensors(str(folder / "model.safetensors"), names, {"quantization_level": "None"})


def measure(loader: NetworkLoader, part: str) -> None:
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    network = getattr(loader, f"load_{part}")()
    kept, peak = ((used - before) / MEBIBYTE for used in (mx.get_active_memory(), mx.get_peak_memory()))
    stored = sum(path.stat().st_size for path in (loader.checkpoint.folder / part).glob("*.safetensors")) / MEBIBYTE
    print(f"{loader.bits or 16:2} bits {part:12} stored {stored:6.1f}  kept {kept:6.1f}  peak {peak:6.1f} MiB")
    del network


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "bfloat16")
