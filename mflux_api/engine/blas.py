"""Give MLX's CPU backend a fast BLAS on Linux: its wheel links the reference one, 15 to 60 times slower."""

import ctypes
import ctypes.util
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path


def load_openblas() -> str | None:
    """Load an OpenBLAS with plain symbols into the process and return its path; None where there is none.

    Without one everything works, slowly. Has no effect once mlx.core is imported, nor off Linux.
    """
    if sys.platform != "linux" or "mlx.core" in sys.modules:
        return None
    for path in _candidates():
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return path
    return None


def _candidates() -> Iterator[str]:
    # opencv's wheel (mflux depends on it) carries an OpenBLAS whose symbols are not prefixed, unlike numpy's.
    spec = importlib.util.find_spec("cv2")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent.parent / "opencv_python.libs"
        yield from map(str, sorted(bundled.glob("libopenblas*.so*")))
    system = ctypes.util.find_library("openblas")
    if system is not None:
        yield system
