"""Write, parse and read SD-WebUI's infotext, the text in a picture that tells how it was painted.

    a fox
    Negative prompt: blue
    Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512

Parses like SD-WebUI 1.10's modules/infotext_utils.py. Files are untrusted input: no text raises an error or takes more
than linear time.
"""

import io
import json
import re
import struct
import warnings
from collections.abc import Iterator, Mapping

from PIL import Image, PngImagePlugin

from mflux_api.errors import InvalidImage

PROMPT, NEGATIVE = "Prompt", "Negative prompt"
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
# Largest EXIF block in a JPEG, in bytes (ITU-T T.81, B.1.1.4).
EXIF_LIMIT = 65_533
# Largest compressed text in a PNG, in bytes. Pillow's limit of 1 MiB is less than some of ComfyUI's workflows take.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 1024**2
# Exif 2.3, 4.6.5: the first eight bytes name the encoding.
ENCODING_BYTES = 8
UNICODE, ASCII, JIS = b"UNICODE\0", b"ASCII\0\0\0", b"JIS\0\0\0\0\0"
BIG, LITTLE = "utf-16-be", "utf-16-le"
# SD-WebUI reads the last line as parameters if it has at least this many.
FEWEST_FACTS = 3
KEY = re.compile(r"[\w \-/]+")
# Possessive quantifiers prevent backtracking on hostile text.
VALUE = re.compile(r'\s*+("(?:\\.|[^\\"])++"(?=,|\Z)|[^,]*+)(?:,|\Z)')
SIZE = re.compile(r"(\d+)x(\d+)")
QUOTED = re.compile(r'[,:\n"]')

# SD-WebUI's values for parameters that an infotext does not contain.
DEFAULTS: Mapping[str, str] = {
    "Clip skip": "1",
    "Hires resize-1": "0",
    "Hires resize-2": "0",
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Hires checkpoint": "Use same checkpoint",
    "Hires prompt": "",
    "Hires negative prompt": "",
    "Mask mode": "Inpaint masked",
    "Masked content": "original",
    "Inpaint area": "Whole picture",
    "Masked area padding": "32",
    "RNG": "GPU",
    "Schedule type": "Automatic",
    "Schedule max sigma": "0",
    "Schedule min sigma": "0",
    "Schedule rho": "0",
    "VAE Encoder": "Full",
    "VAE Decoder": "Full",
    "FP8 weight": "Disable",
    "Refiner switch by sampling steps": "False",
}


def format_infotext(prompt: str, negative: str, facts: Mapping[str, object]) -> str:
    """Format an infotext. Facts that are None are left out.

    `parse_infotext` restores prompts and facts, except: blanks around each line and empty lines before the first; a
    line that begins with "Negative prompt:"; a value such as 64x32, which is split in two; and everything if there are
    fewer than three facts, or keys other than two or more letters, digits, blanks, `-`, `/`.
    """
    against = f"Negative prompt: {negative}" if negative else ""
    line = ", ".join(f"{key}: {_quote(str(value))}" for key, value in facts.items() if value is not None)
    return "\n".join(part for part in (prompt, against, line) if part).strip()


def _quote(value: str) -> str:
    plain = value and value == value.strip() and not QUOTED.search(value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def parse_infotext(text: str) -> dict[str, str]:
    """Parse an infotext into both prompts and each fact by name; `Size` becomes `Size-1` and `Size-2`. Never raises."""
    *lines, last = text.strip().split("\n")
    facts = list(_iter_facts(last))
    if len(facts) < FEWEST_FACTS:
        lines, facts = [*lines, last], []
    found: dict[str, str] = {PROMPT: "", NEGATIVE: ""}
    for key, value in facts:
        found.update(_parse_fact(key, value))
    found[PROMPT], found[NEGATIVE] = _split_prompts(lines)
    return found


def _parse_fact(key: str, value: str) -> dict[str, str]:
    """Convert one fact into entries: two for a size, none for an empty value, as in SD-WebUI."""
    text = _unquote(value)
    size = SIZE.fullmatch(text)
    if size:
        return {f"{key}-1": size[1], f"{key}-2": size[2]}
    return {key: text} if value else {}


def _split_prompts(lines: list[str]) -> tuple[str, str]:
    """Split into prompt and negative prompt, which starts at the first line that begins with "Negative prompt:"."""
    stripped = [line.strip() for line in lines]
    marker = f"{NEGATIVE}:"
    first = next((at for at, line in enumerate(stripped) if line.startswith(marker)), len(stripped))
    negative = (line.removeprefix(marker).strip() for line in stripped[first:])
    return "\n".join(stripped[:first]).lstrip("\n"), "\n".join(negative).lstrip("\n")


def _iter_facts(line: str) -> Iterator[tuple[str, str]]:
    """Yield each key with its value as written, quotes included."""
    at = 0
    while at < len(line):
        run = KEY.match(line, at)
        at = run.end() if run else at + 1
        key = run[0].lstrip(" -/") if run else ""
        if len(key) > 1 and line[at : at + 1] == ":" and (value := VALUE.match(line, at + 1)):
            yield key, value[1]
            at = value.end()


def _unquote(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return _replace_surrogates(json.loads(value))
    except ValueError:
        return value


def _replace_surrogates(text: str) -> str:
    """Replace lone surrogates (`"\\ud800"`), which cannot be encoded as UTF-8."""
    return text.encode("utf-8", "replace").decode()


def add_defaults(parsed: Mapping[str, str]) -> dict[str, str]:
    """Add SD-WebUI's default values to a parsed infotext, unless it has no facts at all."""
    missing = DEFAULTS.keys() - parsed.keys() if parsed.keys() - {PROMPT, NEGATIVE} else set()
    return {**parsed, **{key: value for key, value in DEFAULTS.items() if key in missing}}


def read_infotext(data: bytes) -> tuple[str, dict[str, str]]:
    """Read the infotext in a PNG, JPEG, WebP or GIF file ("" if there is none), and its other texts by name.

    Raises InvalidImage. The picture's size is not limited here: check it first.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _extract_texts(_read_information(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if _is_too_much_text(error):
            return "", {}
        raise InvalidImage("This is not a picture that can be read: send PNG, JPEG or WebP.") from None


def _is_too_much_text(error: Exception) -> bool:
    """Recognize the error of Pillow's limits on decompressed text: MAX_TEXT_CHUNK and MAX_TEXT_MEMORY."""
    return isinstance(error, ValueError) and "MAX_TEXT" in str(error)


def _read_information(image: Image.Image) -> dict[str | tuple[int, int], object]:
    """Return Pillow's `info`. A PNG's texts may follow the pixels, so these are decoded if no infotext came before."""
    if image.format == "PNG" and "parameters" not in image.info:
        try:
            image.load()
        except (OSError, ValueError, SyntaxError, struct.error) as error:
            if _is_too_much_text(error):
                raise
    return dict(image.info)


def _extract_texts(information: Mapping[str | tuple[int, int], object]) -> tuple[str, dict[str, str]]:
    comment = information.get("comment")
    texts = {str(key): str(value) for key, value in information.items() if isinstance(value, str)}
    if isinstance(comment, bytes):
        texts["comment"] = comment.decode("utf-8", "ignore")
    exif = information.get("exif")
    text = _read_user_comment(exif) if isinstance(exif, bytes) else ""
    parameters = texts.pop("parameters", "")
    text = text or parameters or texts.pop("comment", "")
    return _replace_surrogates(text), {
        _replace_surrogates(key): _replace_surrogates(value) for key, value in texts.items()
    }


def _read_user_comment(data: bytes) -> str:
    exif = Image.Exif()
    try:
        exif.load(data)
        comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
    except (OSError, ValueError, SyntaxError, TypeError, LookupError, OverflowError, struct.error):
        return ""
    if isinstance(comment, bytes):
        return _decode_comment(comment, exif.endian == ">").rstrip("\0")
    return comment if isinstance(comment, str) else ""


def _decode_comment(comment: bytes, big_endian: bool) -> str:
    """Decode an EXIF UserComment.

    `big_endian`: the EXIF block is big-endian, as SD-WebUI writes it. In little-endian blocks, UTF-16 occurs in either
    order.
    """
    body = comment[ENCODING_BYTES:]
    if comment.startswith(UNICODE):
        return body.decode(BIG if big_endian else _guess_byte_order(body), "replace").removeprefix("\ufeff")
    if comment.startswith(JIS):
        return body.decode("shift_jis", "replace")
    if comment.startswith((ASCII, bytes(ENCODING_BYTES))):
        return body.decode("utf-8", "replace")
    return comment.decode("utf-8", "ignore")


def _guess_byte_order(body: bytes) -> str:
    """Guess the byte order of UTF-16 from its byte order mark, or from where the zero bytes of Latin letters are."""
    return LITTLE if body.startswith(b"\xff\xfe") or body[1::2].count(0) > body[::2].count(0) else BIG


def encode_exif(text: str) -> bytes:
    """Encode the text as SD-WebUI does for JPEG and WebP, for Pillow's `exif` option.

    Returns b"" for an empty text, and for one that does not fit in a JPEG (over about 32,000 characters).
    """
    block = Image.Exif()
    block.endian = ">"
    block.get_ifd(EXIF_IFD)[USER_COMMENT] = UNICODE + text.encode(BIG, "replace")
    data = block.tobytes()
    return data if text and len(data) <= EXIF_LIMIT else b""
