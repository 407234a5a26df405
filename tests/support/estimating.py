"""Memory estimates of small pictures."""

from pathlib import Path

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.memory_estimate import Machine, MemoryEstimate, estimate_memory

MACHINE = Machine(device="cpu", bytes_per_value=4)


def estimate_small(path: Path, bits: int | None = None, *, upsample: bool = False) -> MemoryEstimate:
    """Estimate one picture of 64 x 64 pixels on a CPU."""
    checkpoint = Checkpoint.read(path)
    return estimate_memory(checkpoint, bits, MACHINE, size=(64, 64), references=[], pictures=1, upsample=upsample)


def estimate_held(checkpoint: Checkpoint, bits: int | None, bytes_per_value: int, *, low_ram: bool = False) -> int:
    """Estimate the bytes that a loaded model holds between pictures."""
    machine = Machine(device="cpu", bytes_per_value=bytes_per_value)
    found = estimate_memory(checkpoint, bits, machine, size=(64, 64), references=[], pictures=1)
    return found.held_bytes(low_ram=low_ram)
