"""Inpainting masks, in which white is repainted (SD-WebUI's modules/masking.py)."""

import io

from PIL import Image, ImageChops, ImageFilter, ImageOps

from mflux_api.pixels.appearance import scale_to_8_bits

Box = tuple[int, int, int, int]
OPAQUE = (255, 255)
HALF = 128
# (blur radius in pixels, repetitions): SD-WebUI's table.
SURROUNDINGS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))


def convert_to_mask(image: Image.Image) -> Image.Image:
    """Convert to mode L: the alpha channel in black and white if any pixel is transparent, else the brightness."""
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != OPAQUE:
            return alpha.point(lambda value: 255 if value > HALF else 0)
    return scale_to_8_bits(image).convert("L")


def make_mask_from_transparency(alpha: Image.Image) -> bytes:
    """Convert the alpha channel of OpenAI's kind of mask, which repaints fully transparent pixels, to a PNG that
    repaints white ones. Raises ValueError when no pixel is fully transparent.
    """
    mask = alpha.point(lambda value: 255 if value == 0 else 0)
    if is_blank(mask):
        raise ValueError("nothing is transparent")
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return buffer.getvalue()


def prepare_mask(mask: Image.Image, invert: bool, blur: tuple[float, float]) -> Image.Image:
    """Invert the mask if asked, and blur its edge. `blur`: horizontal and vertical sigma in pixels."""
    mask = ImageOps.invert(mask) if invert else mask
    return mask.filter(ImageFilter.GaussianBlur(blur)) if max(blur) > 0 else mask


def find_crop_region(mask: Image.Image, padding: int, size: tuple[int, int]) -> Box | None:
    """Find the box around the white pixels, padded and grown to the aspect ratio of `size` inside the picture.

    `padding`: pixels on each side. Returns (left, top, right, bottom), or None for a mask without white. Source:
    SD-WebUI's `get_crop_region_v2`, `expand_crop_region`.
    """
    box = mask.getbbox()
    if box is None:
        return None
    left, top = max(0, box[0] - padding), max(0, box[1] - padding)
    right, bottom = min(mask.width, box[2] + padding), min(mask.height, box[3] + padding)
    # Divided last: a ratio rounded first would round some halves to the other side.
    if (right - left) * size[1] > (bottom - top) * size[0]:
        top, bottom = _grow_span(top, bottom, round((right - left) * size[1] / size[0]), mask.height)
    else:
        left, right = _grow_span(left, right, round((bottom - top) * size[0] / size[1]), mask.width)
    return left, top, right, bottom


def fill_with_surroundings(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Fill the white part of the mask with the blurred colours around it (SD-WebUI's `masking.fill`)."""
    kept = image.convert("RGBA")
    kept.putalpha(ImageOps.invert(mask))
    premultiplied = kept.convert("RGBa")
    result = Image.new("RGBA", image.size)
    for radius, times in SURROUNDINGS:
        blurred = premultiplied.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            result.alpha_composite(blurred)
    return result.convert("RGB")


def paste_back(painted: Image.Image, source: Image.Image, mask: Image.Image, box: Box) -> Image.Image:
    """Paste the painted box into the source through the mask. Outside the mask the source is unchanged."""
    result = source.copy()
    size = (box[2] - box[0], box[3] - box[1])
    fitted = painted if painted.size == size else painted.resize(size, Image.Resampling.LANCZOS)
    result.paste(fitted, box[:2], mask.crop(box))
    return result


def is_blank(mask: Image.Image) -> bool:
    """Tell whether the mask is black, so that nothing is repainted."""
    return not ImageChops.difference(mask, Image.new("L", mask.size)).getbbox()


def _grow_span(low: int, high: int, length: int, limit: int) -> tuple[int, int]:
    """Grow a span to `length` around its middle, and shift it into 0..limit."""
    length = min(max(length, high - low), limit)
    low = min(max(0, (low + high - length) // 2), limit - length)
    return low, low + length
