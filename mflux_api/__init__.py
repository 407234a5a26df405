"""FLUX.2 on MLX: load a model and generate pictures.

import mflux_api
model = mflux_api.load_model("flux2-tiny")
model.generate("a red circle on a white background", seeds=(1,))[0].image.save("circle.png")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mflux_api.version import __version__

if TYPE_CHECKING:
    from mflux_api.engine.model import Model, generate_image, load_model
    from mflux_api.errors import MfluxError
    from mflux_api.ipc.messages import Picture, Preview, Step

__all__ = ["MfluxError", "Model", "Picture", "Preview", "Step", "__version__", "generate_image", "load_model"]

_HOMES = {
    "MfluxError": "mflux_api.errors",
    "Picture": "mflux_api.ipc.messages",
    "Preview": "mflux_api.ipc.messages",
    "Step": "mflux_api.ipc.messages",
    "Model": "mflux_api.engine.model",
    "generate_image": "mflux_api.engine.model",
    "load_model": "mflux_api.engine.model",
}


def __getattr__(name: str) -> Any:
    # Imported on demand: MLX and transformers take a second to import, and the server's process never needs them.
    if name not in _HOMES:
        raise AttributeError(f"module 'mflux_api' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
