"""Upscalers that need no model, by SD-WebUI's names."""

from PIL import Image

from mflux_api.pixels import fitting
from mflux_api.request import Stretch

NONE = "None"
LANCZOS = "Lanczos"
FILTERS = {LANCZOS: Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
# Enlarged as latents, between the two passes of a hires fix. Nothing is made smaller, so nothing needs antialiasing.
LATENT: dict[str, Stretch] = {
    "Latent": "bilinear",
    "Latent (antialiased)": "bilinear",
    "Latent (bicubic)": "bicubic",
    "Latent (bicubic antialiased)": "bicubic",
    "Latent (nearest)": "nearest",
    "Latent (nearest-exact)": "nearest",
}


def enlarged(image: Image.Image, size: tuple[int, int], upscaler: str) -> Image.Image:
    """The picture at (width, height), covering it and cut where the shapes differ. Unknown names mean Lanczos."""
    return fitting.cropped(image, size, FILTERS.get(upscaler, FILTERS[LANCZOS]))
