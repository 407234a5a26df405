"""Checkpoints of a stage, written whole or not at all."""

from pathlib import Path
from typing import Any, Protocol

import torch


class Stateful(Protocol):
    """Anything torch can save and restore."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any:
        """Go on from there."""
        ...


def save_checkpoint(path: Path, parts: dict[str, Stateful], spent: float, step: int) -> None:
    """Write every part and the progress beside the old file, then replace it."""
    state = {name: part.state_dict() for name, part in parts.items()}
    part_file = path.with_suffix(".part")
    torch.save({"parts": state, "spent": spent, "step": step}, part_file)
    part_file.replace(path)


def load_checkpoint(path: Path, parts: dict[str, Stateful]) -> tuple[float, int]:
    """Take up an earlier run; returns the seconds and steps it had spent, zero for a fresh start."""
    if not path.exists():
        return 0.0, 0
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    return state["spent"], state["step"]


def load_part(path: Path, name: str, part: Stateful) -> None:
    """Take one part of a checkpoint."""
    part.load_state_dict(torch.load(path, weights_only=True)["parts"][name])
