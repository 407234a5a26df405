"""Upscalers that need no model, under SD-WebUI's names."""

from PIL import Image

from mflux_api.pixels import fitting
from mflux_api.request import Stretch

NONE = "None"
LANCZOS = "Lanczos"
FILTERS = {LANCZOS: Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
# Upscalers of latents, for a hires fix. They only enlarge, so the antialiased variants are the same as the plain ones.
LATENT_UPSCALERS: dict[str, Stretch] = {
    "Latent": "bilinear",
    "Latent (antialiased)": "bilinear",
    "Latent (bicubic)": "bicubic",
    "Latent (bicubic antialiased)": "bicubic",
    "Latent (nearest)": "nearest",
    "Latent (nearest-exact)": "nearest",
}


def enlarge_to_cover(image: Image.Image, size: tuple[int, int], upscaler: str) -> Image.Image:
    """Scale a picture to cover (width, height), and crop the rest. Unknown upscaler names mean Lanczos."""
    return fitting.resize_to_cover(image, size, FILTERS.get(upscaler, FILTERS[LANCZOS]))
