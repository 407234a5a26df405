"""The rotary base of a text encoder, wherever its config.json keeps it."""

from typing import Any

from mflux_api.checkpoints.safetensors import Config
from mflux_api.errors import ModelUnsupported


def rope_theta(config: Config) -> float:
    """Raises ModelUnsupported for rotary embeddings of another type than the plain one."""
    # transformers 5 writes rope_parameters, earlier ones rope_theta beside rope_scaling.
    rope: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default":
        raise ModelUnsupported(f"Rotary embeddings of the type {kind} are not supported.", rope_type=kind)
    return float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)
