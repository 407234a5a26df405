"""Query MLX about this machine, in a separate process."""

import json
import subprocess
import sys
from dataclasses import dataclass

from mflux_api.resources import make_child_environ

PROBE_SECONDS = 120
# In a separate process, because MLX may abort, and because its BLAS can only be chosen before it is imported.
PROBE = """
import json, time
from mflux_api.engine.blas import load_openblas
blas = load_openblas()
from pathlib import Path
import mlx.core as mx
from mflux_api.engine.engine import find_chip_name
from mflux_api.engine.memory import default_budget
from mflux_api.engine.precision import device_name

device = device_name()
side = 512 if device == "cpu" else 2048
matrix = mx.random.normal((side, side))
times = []
for _ in range(4):
    began = time.perf_counter()
    mx.eval(matrix @ matrix)
    times.append(time.perf_counter() - began)
print(json.dumps({
    "version": mx.__version__,
    "device": device,
    "chip": find_chip_name(),
    "openblas": blas,
    "kernels": str(Path(mx.__file__).parent / "lib" / "mlx.metallib"),
    "budget": default_budget(),
    "gflops": 2 * side**3 / min(times) / 1e9,
}))
"""


@dataclass(frozen=True)
class MlxInfo:
    """Facts about MLX on this machine.

    `openblas`: the OpenBLAS library in use, if any. `kernels`: path of the Metal library. `budget`: default memory
    budget in bytes. `gflops`: speed of a float32 matrix product in GFLOP/s.
    """

    version: str
    device: str
    chip: str
    openblas: str | None
    kernels: str
    budget: int
    gflops: float


def probe_mlx() -> MlxInfo | str:
    """Return the facts about MLX, or the last line of the error if the process failed."""
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-c", PROBE],
            env=make_child_environ(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"MLX did not answer within {PROBE_SECONDS} seconds."
    if asked.returncode != 0:
        return (asked.stderr.strip().splitlines() or [f"MLX's process exited with code {asked.returncode}."])[-1]
    return MlxInfo(**json.loads(asked.stdout.splitlines()[-1]))
