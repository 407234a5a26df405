"""Memory estimates of small pictures."""

from pathlib import Path

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.memory_estimate import Machine, MemoryEstimate, estimate_memory

MACHINE = Machine(device="cpu", bytes_per_value=4)


def estimate_small(path: Path, bits: int | None = None, *, upsample: bool = False) -> MemoryEstimate:
    """Estimate one picture of 64 x 64 pixels on a CPU."""
    checkpoint = Checkpoint.read(path)
    return estimate_memory(checkpoint, bits, MACHINE, size=(64, 64), references=[], pictures=1, upsample=upsample)
