"""The memory that a small picture is estimated to take."""

from pathlib import Path

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.memory_estimate import Machine, MemoryEstimate, estimate_memory

MACHINE = Machine(device="cpu", bytes_per_value=4)


def estimate_small(path: Path, bits: int | None = None, *, upsample: bool = False) -> MemoryEstimate:
    """One picture of 64 pixels a side on a CPU."""
    checkpoint = Checkpoint.read(path)
    return estimate_memory(checkpoint, bits, MACHINE, size=(64, 64), references=[], pictures=1, upsample=upsample)
