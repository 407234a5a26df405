from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.dialects.sdapi.styles import Style, apply_styles, load_styles

INK = Style("ink", "ink drawing", "colour")
OIL = Style("oil", "oil painting of {prompt}, thick", "{prompt}, flat")
STYLES = [INK, OIL]


def write_styles(folder: Path, data: bytes) -> Path:
    path = folder / "styles.csv"
    path.write_bytes(data)
    return path


def test_styles_are_read_from_their_file(tmp_path: Path) -> None:
    data = '\ufeffname,prompt,negative_prompt\r\nink,"ink, drawing",colour\r\noil,"of {prompt},\nthick",\r\n'.encode()
    assert load_styles(write_styles(tmp_path, data)) == [
        Style("ink", "ink, drawing", "colour"),
        Style("oil", "of {prompt},\nthick", ""),
    ]


def test_an_older_file_calls_the_prompt_text(tmp_path: Path) -> None:
    assert load_styles(write_styles(tmp_path, b"name,text\nink,ink drawing\n")) == [Style("ink", "ink drawing", "")]


def test_there_are_no_styles_without_a_file(tmp_path: Path) -> None:
    assert (
        load_styles(None)
        == load_styles(tmp_path / "missing.csv")
        == load_styles(tmp_path)
        == load_styles(write_styles(tmp_path, b""))
        == []
    )


@pytest.mark.parametrize("row", [b"", b",a,b", b"#note,a,b", b'"' + b"a" * 200_000 + b'",a,b'])
def test_a_broken_row_is_left_out(tmp_path: Path, row: bytes) -> None:
    data = b"name,prompt,negative_prompt\n" + row + b"\nink,ink drawing,colour\n"
    assert load_styles(write_styles(tmp_path, data)) == [INK]


def test_a_short_row_has_empty_texts(tmp_path: Path) -> None:
    assert load_styles(write_styles(tmp_path, b"name,prompt,negative_prompt\n---- people ----\n")) == [
        Style("---- people ----", "", "")
    ]


def test_the_last_style_of_a_name_counts(tmp_path: Path) -> None:
    data = b"name,prompt,negative_prompt\nink,pen,\noil,x,\nink,ink drawing,colour\n"
    assert load_styles(write_styles(tmp_path, data)) == [INK, Style("oil", "x", "")]


@given(data=st.binary(max_size=200))
def test_no_file_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    for style in load_styles(write_styles(tmp_path_factory.mktemp("styles"), b"name,prompt\n" + data)):
        assert style.name


def test_a_style_is_appended_or_goes_around() -> None:
    assert apply_styles("a fox", "dull", ["ink"], STYLES) == ("a fox, ink drawing", "dull, colour")
    assert apply_styles("a fox", "dull", ["oil"], STYLES) == ("oil painting of a fox, thick", "dull, flat")


def test_styles_are_applied_in_the_order_of_their_names() -> None:
    assert apply_styles("a fox", "", ["ink", "oil"], STYLES)[0] == "oil painting of a fox, ink drawing, thick"
    assert apply_styles("a fox", "", ["oil", "ink"], STYLES)[0] == "oil painting of a fox, thick, ink drawing"


def test_a_style_alone_needs_no_comma() -> None:
    assert apply_styles("", " ", ["ink"], STYLES) == ("ink drawing", "colour")


def test_unknown_styles_and_none_change_nothing() -> None:
    styles = [*STYLES, Style("None", "never", "never")]
    assert apply_styles(" a fox", "dull ", ["None", "gone", ""], styles) == ("a fox", "dull")
    assert apply_styles("a", "b", ["blank"], [Style("blank", " ", "")]) == ("a", "b")


def test_a_style_is_applied_once() -> None:
    twice = Style("twice", "{prompt} {prompt}", "")
    assert apply_styles("a", "", ["twice"] * 1000, [twice]) == ("a a", "")
