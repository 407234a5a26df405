"""Resize modes of SD-WebUI (its modules/images.py, `resize_image`)."""

from collections.abc import Callable, Mapping

from PIL import Image

LANCZOS = Image.Resampling.LANCZOS
Size = tuple[int, int]


def resize_to_exact(image: Image.Image, size: Size) -> Image.Image:
    """Resize to (width, height), ignoring the aspect ratio."""
    return image if image.size == size else image.resize(size, LANCZOS)


def resize_to_cover(image: Image.Image, size: Size, resampling: Image.Resampling = LANCZOS) -> Image.Image:
    """Scale to cover (width, height), then crop to its centre."""
    scale = max(size[0] / image.width, size[1] / image.height)
    covering = (max(size[0], round(image.width * scale)), max(size[1], round(image.height * scale)))
    if covering == image.size:
        return crop_centre(image, size)
    left, top = (covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2
    across, down = image.width / covering[0], image.height / covering[1]
    # Crop and resize in one call: for an extremely long and thin picture, the uncropped result may not fit in memory.
    right, bottom = min(image.width, (left + size[0]) * across), min(image.height, (top + size[1]) * down)
    return image.resize(size, resampling, box=(left * across, top * down, right, bottom))


def resize_to_contain(image: Image.Image, size: Size) -> Image.Image:
    """Scale to fit inside (width, height), and fill the rest by repeating the edge pixels."""
    scale = min(size[0] / image.width, size[1] / image.height)
    inside = (_clamp_side(image.width * scale, size[0]), _clamp_side(image.height * scale, size[1]))
    return padded(resize_to_exact(image, inside), size)


RESIZE_MODES: Mapping[str, Callable[[Image.Image, Size], Image.Image]] = {
    "stretch": resize_to_exact,
    "crop": resize_to_cover,
    "fill": resize_to_contain,
    "latent": resize_to_exact,
}


def crop_centre(image: Image.Image, size: Size) -> Image.Image:
    """Crop to the central (width, height) pixels. The picture must be at least that large."""
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image if image.size == size else image.crop((left, top, left + size[0], top + size[1]))


def padded(image: Image.Image, size: Size) -> Image.Image:
    """Pad to (width, height) around the picture by repeating its edge pixels. `crop_centre` is the inverse."""
    if image.size == size:
        return image
    width, height = image.size
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    wide = Image.new(image.mode, (size[0], height))
    wide.paste(image, (left, 0))
    _repeat_edge(wide, (left, 0, left + 1, height), (0, 0, left, height))
    _repeat_edge(wide, (left + width - 1, 0, left + width, height), (left + width, 0, size[0], height))
    result = Image.new(image.mode, size)
    result.paste(wide, (0, top))
    _repeat_edge(result, (0, top, size[0], top + 1), (0, 0, size[0], top))
    _repeat_edge(result, (0, top + height - 1, size[0], top + height), (0, top + height, *size))
    return result


def _repeat_edge(image: Image.Image, edge: tuple[int, int, int, int], bar: tuple[int, int, int, int]) -> None:
    width, height = bar[2] - bar[0], bar[3] - bar[1]
    if width > 0 and height > 0:
        image.paste(image.crop(edge).resize((width, height), Image.Resampling.NEAREST), bar[:2])


def _clamp_side(value: float, limit: int) -> int:
    return min(limit, max(1, round(value)))
