"""Convert pictures of every mode to 8-bit sRGB as a viewer shows them: colour profiles, transparency, 16 bits."""

import io
from types import MappingProxyType

from PIL import Image

# Names of colour spaces in ICC profiles, and the mode of pictures that such a profile describes.
PROFILE_MODES = MappingProxyType({"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "Lab": "LAB"})
GREY_MODES = frozenset({"1", "L"})
# Profiles that move no colour of the probe by more than this are sRGB under another name.
SAME_COLOUR = 2
PROBE_LEVELS = (0, 64, 128, 192, 255)


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert to mode RGB in sRGB, on white where the picture is transparent.

    A colour profile that is broken, or made for other pixels, is ignored. Does not turn the picture.
    """
    profile = image.info.get("icc_profile") or b""
    colours, alpha = _split_alpha(image)
    opaque = _convert_to_srgb(colours, profile)
    if alpha is None:
        return opaque
    return Image.composite(opaque, Image.new("RGB", image.size, "white"), alpha)


def scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey (modes I, I;16) and floats (F) to mode L. Other modes are returned unchanged.

    Pillow's own conversion clips these values instead of scaling them.
    """
    if not is_deep(image):
        return image
    import numpy as np  # imported here because it takes 15 MiB and such pictures are rare

    values = np.nan_to_num(np.asarray(image, np.float32))
    scale = 1 / 257
    if image.mode == "F":
        scale = 255.0 if values.max(initial=0) <= 1 else 1.0
    return Image.fromarray(np.rint(values * np.float32(scale)).clip(0, 255).astype(np.uint8))


def is_deep(image: Image.Image) -> bool:
    """Tell whether a picture has more than 8 bits for each pixel of grey."""
    return image.mode.startswith("I") or image.mode == "F"


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the opaque colours in mode RGB, L, CMYK or another without alpha, and the alpha channel in mode L."""
    if is_deep(image):
        return scale_to_8_bits(image), _find_deep_key(image)
    if not image.has_transparency_data:
        return image, None
    grey = image.mode in {*GREY_MODES, "LA", "La"}
    straight = image.convert("LA") if image.mode == "La" else image
    full = straight.convert("RGBA")
    return full.convert("RGB").convert("L" if grey else "RGB"), full.getchannel("A")


def _find_deep_key(image: Image.Image) -> Image.Image | None:
    """Return the alpha channel of 16-bit grey in which one value is transparent; None if none is."""
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return None
    import numpy as np

    return Image.fromarray(((np.asarray(image) != key) * 255).astype(np.uint8))


def _convert_to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    converted = _apply_profile(image, profile) if profile or image.mode == "LAB" else None
    return image.convert("RGB") if converted is None else converted


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert from the profile's colours to sRGB; None if the profile is broken or does not fit the picture."""
    # Imported here because most pictures have no profile.
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile) if profile else ImageCms.createProfile("LAB"))
        mode = PROFILE_MODES.get(source.profile.xcolor_space.strip(), "")
        if mode != _profiled_mode(image):
            return None
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "RGB" and _is_identity(transform):
            return None
        return ImageCms.applyTransform(image.convert(mode), transform)
    # ImportError: a Pillow that was built without LittleCMS.
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, ImportError):
        return None


def _profiled_mode(image: Image.Image) -> str:
    """Return the mode that a profile for this picture describes."""
    if image.mode in GREY_MODES:
        return "L"
    return image.mode if image.mode in {"CMYK", "LAB"} else "RGB"


def _is_identity(transform: object) -> bool:
    """Tell whether a transform from RGB changes nothing that can be seen, so that sRGB pictures keep their values."""
    from PIL import ImageCms

    probe = Image.frombytes(
        "RGB",
        (len(PROBE_LEVELS) ** 3, 1),
        bytes(level for r in PROBE_LEVELS for g in PROBE_LEVELS for b in PROBE_LEVELS for level in (r, g, b)),
    )
    assert isinstance(transform, ImageCms.ImageCmsTransform)
    shown = ImageCms.applyTransform(probe, transform)
    assert shown is not None
    return all(abs(old - new) <= SAME_COLOUR for old, new in zip(probe.tobytes(), shown.tobytes(), strict=True))
