"""Pictures brought to another size, as SD-WebUI's resize modes do it (its modules/images.py, `resize_image`)."""

from collections.abc import Callable, Mapping

from PIL import Image

LANCZOS = Image.Resampling.LANCZOS
Size = tuple[int, int]


def stretched(image: Image.Image, size: Size) -> Image.Image:
    """Distorted to (width, height) where the shapes differ."""
    return image if image.size == size else image.resize(size, LANCZOS)


def cropped(image: Image.Image, size: Size, resampling: Image.Resampling = LANCZOS) -> Image.Image:
    """Enlarged or shrunk until it covers (width, height), then cut at its centre."""
    scale = max(size[0] / image.width, size[1] / image.height)
    covering = (max(size[0], round(image.width * scale)), max(size[1], round(image.height * scale)))
    if covering == image.size:
        return centre(image, size)
    left, top = (covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2
    across, down = image.width / covering[0], image.height / covering[1]
    # In one go: of a picture like a thread, what covers the size may be too large for any memory.
    right, bottom = min(image.width, (left + size[0]) * across), min(image.height, (top + size[1]) * down)
    return image.resize(size, resampling, box=(left * across, top * down, right, bottom))


def filled(image: Image.Image, size: Size) -> Image.Image:
    """All of it inside (width, height), between bars of its own edges."""
    scale = min(size[0] / image.width, size[1] / image.height)
    inside = (_side(image.width * scale, size[0]), _side(image.height * scale, size[1]))
    return padded(stretched(image, inside), size)


FIT: Mapping[str, Callable[[Image.Image, Size], Image.Image]] = {
    "stretch": stretched,
    "crop": cropped,
    "fill": filled,
    "latent": stretched,
}


def centre(image: Image.Image, size: Size) -> Image.Image:
    """The middle (width, height) pixels of a picture that has at least as many."""
    left, top = (image.width - size[0]) // 2, (image.height - size[1]) // 2
    return image if image.size == size else image.crop((left, top, left + size[0], top + size[1]))


def padded(image: Image.Image, size: Size) -> Image.Image:
    """In the middle of (width, height), its outermost pixels repeated to the borders; `centre` takes that back."""
    if image.size == size:
        return image
    width, height = image.size
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    wide = Image.new(image.mode, (size[0], height))
    wide.paste(image, (left, 0))
    _repeat(wide, (left, 0, left + 1, height), (0, 0, left, height))
    _repeat(wide, (left + width - 1, 0, left + width, height), (left + width, 0, size[0], height))
    result = Image.new(image.mode, size)
    result.paste(wide, (0, top))
    _repeat(result, (0, top, size[0], top + 1), (0, 0, size[0], top))
    _repeat(result, (0, top + height - 1, size[0], top + height), (0, top + height, *size))
    return result


def _repeat(image: Image.Image, edge: tuple[int, int, int, int], bar: tuple[int, int, int, int]) -> None:
    width, height = bar[2] - bar[0], bar[3] - bar[1]
    if width > 0 and height > 0:
        image.paste(image.crop(edge).resize((width, height), Image.Resampling.NEAREST), bar[:2])


def _side(value: float, limit: int) -> int:
    return min(limit, max(1, round(value)))
