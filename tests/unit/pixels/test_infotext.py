import contextlib
import io
import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from mflux_api.errors import InvalidImage
from mflux_api.pixels.infotext import add_defaults, encode_exif, format_infotext, parse_infotext, read_infotext

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
FACTS = {"Steps": 20, "Sampler": "Euler", "CFG scale": 7.0, "Seed": 1, "Size": "512x768", "Model": "m"}
LINE = "Steps: 20, Sampler: Euler, CFG scale: 7.0, Seed: 1, Size: 512x768, Model: m"
PARSED = {
    "Steps": "20",
    "Sampler": "Euler",
    "CFG scale": "7.0",
    "Seed": "1",
    "Size-1": "512",
    "Size-2": "768",
    "Model": "m",
}

anything = st.text(st.characters(codec="utf-8"))
# Pieces of infotexts, so that random texts sometimes form one.
pieces = st.sampled_from(
    ["Negative prompt:", "Steps: 1", "a fox", ", ", ": ", "\n", '"', "\\", " ", "64x64", "\u2028", "\t"]
)
likely = st.lists(pieces | anything, max_size=30).map("".join)
keys = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_ \-/]{0,10}[A-Za-z0-9_]", fullmatch=True)


def picture(form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(buffer, form, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_comment(comment: bytes, endian: str = "<") -> bytes:
    block = Image.Exif()
    block.endian = endian
    block.get_ifd(EXIF_IFD)[USER_COMMENT] = comment
    return picture("JPEG", exif=block)


def strip_text_chunks(text: str) -> str:
    return "\n".join(line.strip() for line in text.split("\n"))


# Words


def test_an_infotext_has_a_prompt_a_negative_prompt_and_a_line_of_facts() -> None:
    assert format_infotext("a fox", "blue", FACTS) == f"a fox\nNegative prompt: blue\n{LINE}"


def test_there_is_no_line_for_a_negative_prompt_that_there_is_not() -> None:
    assert format_infotext("a fox", "", FACTS) == f"a fox\n{LINE}"
    assert format_infotext("", "", FACTS) == LINE


def test_a_fact_that_is_none_is_left_out() -> None:
    assert format_infotext("a", "", {"Steps": 1, "Denoising strength": None, "Seed": 2}) == "a\nSteps: 1, Seed: 2"


@pytest.mark.parametrize("value", ["a, b", "a: b", "a\nb", '"a"', 'a "b" c', "", " a", "a\t", "ü, \\, 狐"])
def test_a_value_that_would_not_come_back_is_quoted(value: str) -> None:
    text = format_infotext("a", "", {**FACTS, "Lora hashes": value})
    assert text.endswith(f"Lora hashes: {json.dumps(value, ensure_ascii=False)}")
    assert parse_infotext(text)["Lora hashes"] == value


def test_facts_are_found_by_their_names_and_sizes_in_two() -> None:
    text = f"a fox\nin snow\nNegative prompt: blue\ngreen\n{LINE}"
    assert parse_infotext(text) == {"Prompt": "a fox\nin snow", "Negative prompt": "blue\ngreen", **PARSED}


def test_a_last_line_with_fewer_than_three_facts_is_a_prompt() -> None:
    assert parse_infotext("a fox\nSteps: 20, Seed: 1") == {"Prompt": "a fox\nSteps: 20, Seed: 1", "Negative prompt": ""}
    assert parse_infotext("a\nNegative prompt: b\nSteps: 2") == {"Prompt": "a", "Negative prompt": "b\nSteps: 2"}


def test_a_text_of_facts_alone_has_no_prompt() -> None:
    assert parse_infotext(LINE) == {"Prompt": "", "Negative prompt": "", **PARSED}


def test_a_fact_without_a_value_counts_and_is_not_there() -> None:
    assert parse_infotext("a\nSteps: 2, Seed: , Size: 8x8") == {
        "Prompt": "a",
        "Negative prompt": "",
        "Steps": "2",
        "Size-1": "8",
        "Size-2": "8",
    }


def test_facts_called_like_the_prompts_do_not_replace_them() -> None:
    assert parse_infotext("a fox\nPrompt: b, Negative prompt: c, Steps: 1")["Prompt"] == "a fox"


def test_a_quote_that_never_ends_is_a_letter_like_any_other() -> None:
    assert parse_infotext('a\nSteps: 2, Model: "b, Seed: 1')["Model"] == '"b'
    assert parse_infotext('a\nSteps: 2, Model: "b" c, Seed: 1')["Model"] == '"b" c'


def test_half_a_character_is_not_handed_on() -> None:
    assert parse_infotext('a\nSteps: 2, Model: "\\ud800", Seed: 1')["Model"] == "?"


@given(likely)
@example("")
@example('aa:" ,bb: ,cc:')
def test_no_text_is_refused(text: str) -> None:
    found = parse_infotext(text)
    assert {"Prompt", "Negative prompt"} <= found.keys()
    assert all(isinstance(value, str) for value in found.values())


@given(likely, likely)
def test_prompts_come_back_but_for_blanks_around_lines(prompt: str, negative: str) -> None:
    assume("Negative prompt:" not in prompt + negative)
    found = parse_infotext(format_infotext(prompt, negative, FACTS))
    assert found["Prompt"] == strip_text_chunks(prompt).lstrip("\n")
    assert found["Negative prompt"] == strip_text_chunks(negative).lstrip("\n")


@given(anything, anything)
def test_tidy_prompts_come_back_as_they_were(prompt: str, negative: str) -> None:
    for text in (prompt, negative):
        assume(text == strip_text_chunks(text) and not text.startswith("\n") and "Negative prompt:" not in text)
    assert parse_infotext(format_infotext(prompt, negative, FACTS)) == {
        "Prompt": prompt,
        "Negative prompt": negative,
        **PARSED,
    }


@given(st.dictionaries(keys, likely.filter(lambda value: "x" not in value), min_size=3))
def test_facts_come_back_as_they_were(facts: dict[str, str]) -> None:
    prompts = {"Prompt": "a", "Negative prompt": "b"}
    assume(not facts.keys() & prompts.keys())
    assert parse_infotext(format_infotext("a", "b", facts)) == {**facts, **prompts}


# A quadratic search over a run of these would take hours.
@pytest.mark.parametrize("hostile", [" ", "a", "\t", '"', "\\", "a ", 'aa:"', 'aa:"\\', "aa: ,", "\n"])
def test_long_runs_are_read(hostile: str) -> None:
    assert parse_infotext("." + hostile * 200_000 + ".")["Negative prompt"] == ""


def test_what_sd_webui_takes_for_granted_is_filled_in() -> None:
    found = add_defaults(parse_infotext(f"a\n{LINE}, Schedule type: Karras"))
    expected = {
        "Clip skip": "1",
        "Hires resize-1": "0",
        "Hires resize-2": "0",
        "RNG": "GPU",
        "Mask mode": "Inpaint masked",
    }
    assert expected.items() <= found.items()
    assert found["Schedule type"] == "Karras"
    assert add_defaults(parse_infotext(f"a\n{LINE}"))["Schedule type"] == "Automatic"


def test_nothing_is_filled_in_where_nothing_was_found() -> None:
    assert add_defaults(parse_infotext("a fox")) == {"Prompt": "a fox", "Negative prompt": ""}


# Files


@pytest.mark.parametrize(
    ("text", "compressed"), [("a fox, Steps", False), ("狐", False), ("a fox", True), ("狐", True)]
)
def test_a_png_keeps_it_in_a_chunk_of_text(text: str, compressed: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", text, zip=compressed)
    info.add_text("Software", "a brush")
    assert read_infotext(picture("PNG", pnginfo=info)) == (text, {"Software": "a brush"})


def test_a_chunk_behind_the_pixels_is_found() -> None:
    plain, end = picture("PNG"), chunk(b"IEND", b"")
    data = plain.removesuffix(end) + chunk(b"tEXt", b"parameters\0a fox") + end
    assert read_infotext(data) == ("a fox", {})


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
@given(text=anything)
@example(text="Ā")
@example(text="䅂")
def test_jpeg_and_webp_keep_it_in_the_user_comment(form: str, text: str) -> None:
    assume(not text.startswith("\ufeff") and not text.endswith("\0"))
    assert read_infotext(picture(form, exif=encode_exif(text))) == (text, {})


def test_the_user_comment_is_written_as_sd_webui_does() -> None:
    image = Image.open(io.BytesIO(picture("JPEG", exif=encode_exif("狐 a"))))
    assert image.getexif().get_ifd(EXIF_IFD)[USER_COMMENT] == b"UNICODE\0\x72\xd0\x00 \x00a"


def test_a_text_that_no_jpeg_has_room_for_is_left_out() -> None:
    assert encode_exif("a" * 33_000) == b""
    assert len(read_infotext(picture("JPEG", exif=encode_exif("a" * 32_000)))[0]) == 32_000


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize(
    "comment",
    [
        b"UNICODE\0" + "a fox, 狐".encode("utf-16-be"),
        b"ASCII\0\0\0" + "a fox, 狐".encode(),
        bytes(8) + "a fox, 狐".encode(),
        b"JIS\0\0\0\0\0" + "a fox, 狐".encode("shift_jis"),
        "a fox, 狐".encode(),
    ],
)
def test_user_comments_are_read_in_every_encoding(comment: bytes, endian: str) -> None:
    assert read_infotext(with_comment(comment, endian)) == ("a fox, 狐", {})


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16"])
def test_utf_16_is_read_in_either_order(encoding: str) -> None:
    assert read_infotext(with_comment(b"UNICODE\0" + "a fox, 狐".encode(encoding)))[0] == "a fox, 狐"
    marked = b"UNICODE\0\xff\xfe" + "狐".encode("utf-16-le")
    assert read_infotext(with_comment(marked))[0] == "狐"


def test_a_gif_keeps_it_in_its_comment() -> None:
    assert read_infotext(picture("GIF", comment="a fox, 狐".encode())) == ("a fox, 狐", {})


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_picture_without_text_has_none(form: str) -> None:
    assert read_infotext(picture(form)) == ("", {})


def test_a_comment_beside_the_user_comment_is_another_text() -> None:
    assert read_infotext(picture("JPEG", exif=encode_exif("a fox"), comment=b"by hand")) == (
        "a fox",
        {"comment": "by hand"},
    )


def test_text_that_unpacks_to_too_much_is_none() -> None:
    plain, end = picture("PNG"), chunk(b"IEND", b"")
    bomb = chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(1 << 25)))
    header = plain[:33]
    assert read_infotext(header + bomb + plain[33:]) == ("", {})
    assert read_infotext(plain.removesuffix(end) + bomb + end) == ("", {})
    many = chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"a" * 1_000_000))
    assert read_infotext(header + many * 70 + plain[33:]) == ("", {})


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"a fox", bytes(100), picture("PNG")[:20]])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidImage):
        read_infotext(data)


@given(st.binary(max_size=200), st.sampled_from([b"", b"MM\0*", b"II*\0", b"Exif\0\0MM\0*", b"Exif\0\0II*\0"]))
def test_no_exif_breaks_the_reading(noise: bytes, start: bytes) -> None:
    text, others = read_infotext(picture("WEBP", exif=start + noise))
    assert (text.encode().decode(), others) == (text, {})


@given(st.data(), st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
def test_a_damaged_picture_is_read_or_refused(data: st.DataObject, form: str) -> None:
    options = {
        "JPEG": {"exif": encode_exif("a fox")},
        "WEBP": {"exif": encode_exif("a fox")},
        "GIF": {"comment": b"a fox"},
    }
    damaged = bytearray(picture(form, **options.get(form, {})))
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=8)):
        damaged[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidImage):
        read_infotext(bytes(damaged))
