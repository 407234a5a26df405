"""Upscalers that need no model, by SD-WebUI's names."""

from PIL import Image

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
    filters = FILTERS.get(upscaler, FILTERS[LANCZOS])
    scale = max(size[0] / image.width, size[1] / image.height)
    covering = (max(size[0], round(image.width * scale)), max(size[1], round(image.height * scale)))
    grown = image if image.size == covering else image.resize(covering, filters)
    left, top = (covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2
    return grown if covering == size else grown.crop((left, top, left + size[0], top + size[1]))
