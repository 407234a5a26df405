"""Pictures as cameras and programs write them, each with how it looks."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageCms

from tests.support.refusals import chunk

ORIENTATION = 0x0112
QUARTER_TURN = 6
IEND = chunk(b"IEND", b"")
# Left of the pixels: the signature and IHDR.
HEADER = 33
# The primaries of Display P3, as columns of a matrix.
P3 = ((0.51512, 0.24119, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))


def scene(width: int = 128, height: int = 64) -> Image.Image:
    """Red at the upper left, blue at the lower right, white else."""
    image = Image.new("RGB", (width, height), "white")
    image.paste((200, 40, 30), (0, 0, width // 2, height // 2))
    image.paste((30, 60, 200), (width // 2, height // 2, width, height))
    return image


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def exif_block(orientation: int = QUARTER_TURN) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def odd_exif_block(kind: int = 3) -> bytes:
    """An EXIF block whose other entries are nonsense: unknown types, values outside of the block."""
    entries = [
        struct.pack(">HHII", 0x010F, 2, 4_000_000_000, 4_000_000_000),
        struct.pack(">HHII", 0x0110, 99, 1, 0),
        struct.pack(">HHI", ORIENTATION, kind, 1) + {1: b"\6\0\0\0", 3: b"\0\6\0\0", 4: b"\0\0\0\6"}[kind],
        struct.pack(">HHII", 0x8769, 4, 1, 8),
    ]
    return b"Exif\0\0MM\0*\0\0\0\10" + struct.pack(">H", len(entries)) + b"".join(entries)


@cache
def wide_gamut(extra: int = 0) -> bytes:
    """A matrix profile of Display P3 with gamma 2.2. `extra`: bytes of a private tag that does nothing."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(2.2 * 256), 0)
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Wide\0" + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz((0.9642, 1, 0.8249)),
        **dict(zip((b"rXYZ", b"gXYZ", b"bXYZ"), map(xyz, P3), strict=True)),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
        **({b"priv": b"text\0\0\0\0" + bytes(extra)} if extra else {}),
    }
    start, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        padded = data + bytes(-len(data) % 4)
        table += name + struct.pack(">II", start + len(body), len(padded))
        body += padded
    head = struct.pack(">I", start + len(body)) + bytes(4) + struct.pack(">I", 0x02100000) + b"mntrRGB XYZ "
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + b"".join(map(fixed, (0.9642, 1, 0.8249)))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def from_wide_gamut(image: Image.Image) -> Image.Image:
    """Convert pixels of the wide gamut to sRGB."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(wide_gamut()))
    shown = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert shown is not None
    return shown


def turned(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.ROTATE_270)


def with_chunks(png: bytes, before: bytes = b"", behind: bytes = b"") -> bytes:
    """Put chunks before and behind the pixels."""
    return png[:HEADER] + before + png[HEADER:].removesuffix(IEND) + behind + IEND


def phone() -> bytes:
    """A picture of two, as phones write them (MPO), turned."""
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = QUARTER_TURN
    more = [Image.new("RGB", (32, 16))]
    scene().save(stream, "MPO", save_all=True, append_images=more, exif=exif, quality=95, subsampling=0)
    return stream.getvalue()


def everything() -> bytes:
    """A PNG with an orientation behind the pixels, a wide gamut, a long compressed text and transparent parts."""
    image = scene().convert("RGBA")
    image.putalpha(hole())
    text = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"a node " * 400_000))
    return with_chunks(encode(image, icc_profile=wide_gamut()), text, chunk(b"eXIf", odd_exif_block()[6:]))


def looks_of_everything() -> Image.Image:
    image = from_wide_gamut(scene())
    image.paste((255, 255, 255), mask=hole().point(lambda value: 255 - value))
    return turned(image)


def hole() -> Image.Image:
    alpha = Image.new("L", (128, 64), 255)
    alpha.paste(0, (8, 8, 40, 24))
    return alpha


def on_white() -> Image.Image:
    image = scene()
    image.paste((255, 255, 255), (8, 8, 40, 24))
    return image


def transparent(mode: str = "RGBA") -> Image.Image:
    image = scene().convert(mode.removesuffix("A")).convert(mode)
    image.putalpha(hole())
    return image


def palette() -> bytes:
    """A palette picture with a transparent entry of a colour that must not be seen."""
    image = on_white().quantize(8)
    clear = image.getpixel((20, 12))
    image.paste(200, (8, 8, 40, 24))
    colours = [*(image.getpalette() or []), *[0] * 768][:768]
    colours[600:603] = [0, 255, 0]
    image.putpalette(colours)
    assert clear != 200
    return encode(image, transparency=200)


def deep_grey() -> bytes:
    return encode(Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257))


def deep_grey_with_key() -> bytes:
    """16-bit grey in which one value is transparent."""
    values = np.asarray(scene().convert("L")).astype(np.uint16) * 257
    values[8:24, 8:40] = 0x1234
    return with_chunks(encode(Image.fromarray(values)), chunk(b"tRNS", b"\x12\x34"))


def grey_of_bits(bits: int) -> bytes:
    """Black with a white corner, in 2 or 4 bits, in which white is transparent."""
    row = b"\0" + bytes([0xFF] * (4 * bits)) + bytes(4 * bits)
    header = struct.pack(">IIBBBBB", 64, 64, bits, 0, 0, 0, 0)
    key = chunk(b"tRNS", struct.pack(">H", (1 << bits) - 1))
    data = chunk(b"IDAT", zlib.compress(row * 64))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + key + data + IEND


def half_white() -> Image.Image:
    image = Image.new("RGB", (64, 64))
    image.paste((255, 255, 255), (0, 0, 32, 64))
    return image


def animated(form: str) -> bytes:
    return encode(scene(), form, save_all=True, append_images=[Image.new("RGB", (128, 64))], duration=100)


def grey() -> Image.Image:
    return scene().convert("L")


Photographs = dict[str, tuple[Callable[[], bytes], Callable[[], Image.Image]]]
# Name -> (the file, how it looks). A JPEG is compared loosely.
PHOTOGRAPHS: Photographs = {
    "a PNG": (lambda: encode(scene()), scene),
    "a turned JPEG": (
        lambda: encode(scene(), "JPEG", exif=exif_block(), quality=95, subsampling=0),
        lambda: turned(scene()),
    ),
    "a turned WebP": (lambda: encode(scene(), "WEBP", exif=exif_block(), lossless=True), lambda: turned(scene())),
    "a turned PNG": (lambda: encode(scene(), exif=exif_block()), lambda: turned(scene())),
    "a PNG turned behind its pixels": (
        lambda: with_chunks(encode(scene()), behind=chunk(b"eXIf", exif_block()[6:])),
        lambda: turned(scene()),
    ),
    "a PNG turned by ImageMagick": (
        lambda: with_chunks(
            encode(scene()),
            chunk(
                b"zTXt",
                b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  99\n" + exif_block().hex("\n", 36).encode()),
            ),
        ),
        lambda: turned(scene()),
    ),
    "a turned picture of a phone": (phone, lambda: turned(scene())),
    "an odd EXIF block": (lambda: encode(scene(), exif=odd_exif_block()), lambda: turned(scene())),
    "an odd EXIF block in a JPEG": (
        lambda: encode(scene(), "JPEG", exif=odd_exif_block(4), quality=95, subsampling=0),
        lambda: turned(scene()),
    ),
    "an odd EXIF block in a WebP": (
        lambda: encode(scene(), "WEBP", exif=odd_exif_block(1), lossless=True),
        lambda: turned(scene()),
    ),
    "a broken EXIF block": (lambda: encode(scene(), exif=b"Exif\0\0MM\0*\xff\xff\xff\xffnothing"), scene),
    "an EXIF block that is cut off": (lambda: encode(scene(), "JPEG", exif=odd_exif_block()[:20], quality=95), scene),
    "a wide gamut": (lambda: encode(scene(), icc_profile=wide_gamut()), lambda: from_wide_gamut(scene())),
    "a wide gamut in a JPEG": (
        lambda: encode(scene(), "JPEG", icc_profile=wide_gamut(), quality=95, subsampling=0),
        lambda: from_wide_gamut(scene()),
    ),
    "a palette of a wide gamut": (
        lambda: encode(scene().quantize(8), icc_profile=wide_gamut()),
        lambda: from_wide_gamut(scene()),
    ),
    "a profile of megabytes": (
        lambda: encode(scene(), icc_profile=wide_gamut(2_000_000)),
        lambda: from_wide_gamut(scene()),
    ),
    "sRGB by profile": (
        lambda: encode(scene(), icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
        scene,
    ),
    "a broken profile": (lambda: encode(scene(), icc_profile=b"no profile"), scene),
    "half a profile": (lambda: encode(scene(), icc_profile=wide_gamut()[:200]), scene),
    "a profile of other pixels": (
        lambda: encode(grey(), icc_profile=wide_gamut()),
        lambda: grey().convert("RGB"),
    ),
    "compressed text of megabytes": (
        lambda: with_chunks(encode(scene()), chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"a node " * 400_000))),
        scene,
    ),
    "too much text": (
        lambda: with_chunks(encode(scene()), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000))) * 80),
        scene,
    ),
    "transparent": (lambda: encode(transparent()), on_white),
    "a transparent WebP": (lambda: encode(transparent(), "WEBP", lossless=True), on_white),
    "transparent grey": (lambda: encode(transparent("LA")), lambda: on_white().convert("L").convert("RGB")),
    "a transparent colour of a palette": (palette, on_white),
    "a transparent grey of 16 bits": (deep_grey_with_key, lambda: on_white().convert("L").convert("RGB")),
    "a transparent grey of 2 bits": (lambda: grey_of_bits(2), half_white),
    "a transparent grey of 4 bits": (lambda: grey_of_bits(4), half_white),
    "grey of 16 bits": (deep_grey, lambda: grey().convert("RGB")),
    "black and white": (lambda: encode(scene().convert("1")), lambda: scene().convert("1").convert("RGB")),
    "CMYK": (
        lambda: encode(scene().convert("CMYK"), "JPEG", quality=95, subsampling=0),
        lambda: scene().convert("CMYK").convert("RGB"),
    ),
    "an animated GIF": (lambda: animated("GIF"), scene),
    "an animated PNG": (lambda: animated("PNG"), scene),
    "an animated WebP": (lambda: animated("WEBP"), scene),
    "everything at once": (everything, looks_of_everything),
}
# What the command line and the library read as well.
FURTHER: Photographs = {
    "a TIFF": (lambda: encode(scene(), "TIFF"), scene),
    "a turned TIFF": (lambda: encode(scene(), "TIFF", exif=exif_block()), lambda: turned(scene())),
    "a TIFF of 16 bits": (
        lambda: encode(Image.fromarray(np.asarray(grey()).astype(np.uint16) * 257), "TIFF"),
        lambda: grey().convert("RGB"),
    ),
    "a TIFF of floats": (
        lambda: encode(Image.fromarray(np.asarray(grey()).astype(np.float32) / 255), "TIFF"),
        lambda: grey().convert("RGB"),
    ),
}


def difference(one: Image.Image, other: Image.Image) -> float:
    """Return the mean difference of two pictures of the same size, in levels of 255."""
    assert one.size == other.size
    pixels = (np.asarray(image.convert("RGB"), np.float32) for image in (one, other))
    return float(np.abs(next(pixels) - next(pixels)).mean())
