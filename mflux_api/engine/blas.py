"""Give MLX's CPU backend a fast BLAS on Linux. Its wheel links the reference BLAS, which is 15 to 60 times slower."""

import ctypes
import ctypes.util
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path


def load_openblas() -> str | None:
    """Load an OpenBLAS with unprefixed symbols into the process. Return its path, or None if there is none.

    Without OpenBLAS everything works, but slowly. Has no effect after mlx.core is imported, or on other systems.
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
    # opencv's wheel (a dependency of mflux) contains an OpenBLAS whose symbols are not prefixed, unlike numpy's.
    spec = importlib.util.find_spec("cv2")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent.parent / "opencv_python.libs"
        yield from map(str, sorted(bundled.glob("libopenblas*.so*")))
    system = ctypes.util.find_library("openblas")
    if system is not None:
        yield system
