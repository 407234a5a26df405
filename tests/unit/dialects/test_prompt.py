import itertools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mflux_api.dialects.sdapi import prompt, prompt_editing
from mflux_api.dialects.sdapi.prompt import extract_loras, parse_emphasis, parse_prompt_attention, strip_emphasis
from mflux_api.dialects.sdapi.prompt_editing import parse_schedule

anything = st.text(st.characters(codec="utf-8"))
# Pieces of the syntax, so that random texts sometimes form it.
signs = [*"()[]:|\\<>,", " AND ", "BREAK", "a", "b ", "3", "0.5", ":1.3)", ":2]", "<lora:a:1>", "\n"]
likely = st.lists(st.sampled_from(signs) | anything, max_size=30).map("".join)


# Adapters


@pytest.mark.parametrize(
    ("tag", "use"),
    [
        ("<lora:oil>", ("oil", 1.0)),
        ("<lora:oil:0.8>", ("oil", 0.8)),
        ("<lora:oil:0.8:0.5>", ("oil", 0.5)),
        ("<lora:oil:te=0.8:unet=0.5>", ("oil", 0.5)),
        ("<lora:oil:0.8:te=0.5>", ("oil", 0.8)),
        ("<lora:oil:-1>", ("oil", -1.0)),
        ("<lyco:oil:0.8>", ("oil", 0.8)),
        ("<lora: my oil v1.2 :.5>", ("my oil v1.2", 0.5)),
        ("<lora:oil:much>", ("oil", 1.0)),
        ("<lora:oil:nan>", ("oil", 1.0)),
        ("<lora:oil:1e999>", ("oil", 1.0)),
        ("<lora:oil:>", ("oil", 1.0)),
    ],
)
def test_an_adapter_is_a_name_and_a_weight(tag: str, use: tuple[str, float]) -> None:
    assert extract_loras(f"a fox {tag}") == ("a fox", (use,))


def test_adapters_keep_their_order() -> None:
    assert extract_loras("<lora:b:2>a<lora:a:1><lora:b:3>") == ("a", (("b", 2.0), ("a", 1.0), ("b", 3.0)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a fox, <lora:x>, in snow", "a fox, in snow"),
        ("a fox <lora:x> in snow", "a fox in snow"),
        ("a fox, <lora:x> in snow", "a fox, in snow"),
        ("a fox <lora:x>, in snow", "a fox, in snow"),
        ("a fox, <lora:x>, <lora:y>,<lora:z> , in snow", "a fox, in snow"),
        ("<lora:x>, a fox, <lora:y>", "a fox"),
        ("a fox<lora:x>es", "a foxes"),
        ("a fox,\n<lora:x>\nin snow", "a fox,\nin snow"),
        ("<lora:x>", ""),
        ("<hypernet:x:1>a", "a"),
        ("<lora::1>a", "a"),
        (" a,  b, ", " a,  b, "),
        (" a,  b <lora:x> c,  d, ", " a,  b c,  d, "),
    ],
)
def test_no_gap_is_left_where_a_tag_stood(text: str, words: str) -> None:
    assert extract_loras(text)[0] == words


@pytest.mark.parametrize("text", ["<lora:x", "lora:x>", "<lora>", "<lora:>", "<b:x>", "< lora:x>", "a < b > c"])
def test_what_is_no_tag_stays(text: str) -> None:
    assert extract_loras(text) == (text, ())


# Steps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test", [(10, "test")]),
        ("", [(10, "")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3 ]", [(3, "a "), (10, "a b")]),
        ("a [b::3] c", [(3, "a b c"), (10, "a  c")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("[a:b:0.3]", [(3, "a"), (10, "b")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("[a:b:0.35]", [(3, "a"), (10, "b")]),
        ("[a:b:1e0]", [(1, "a"), (10, "b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a\\]:b\\::3]", [(3, "a\\]"), (10, "b\\:")]),
        ("[same:same:3]", [(10, "same")]),
    ],
)
def test_words_change_after_a_step(text: str, expected: list[tuple[int, str]]) -> None:
    assert list(parse_schedule(text, 10)) == expected


@pytest.mark.parametrize(
    ("when", "before", "after"),
    [("0", 0, 10), ("-3", 0, 10), ("0.01", 0, 10), ("10", 10, 0), ("99", 10, 0), ("1.0", 10, 0), ("1e999", 10, 0)],
)
def test_a_step_that_never_comes_changes_nothing(when: str, before: int, after: int) -> None:
    assert parse_schedule(f"[a:b:{when}]", 10) == ((10, "a" if before > after else "b"),)


def test_words_take_turns() -> None:
    assert parse_schedule("[a|b] c", 3) == ((1, "a c"), (2, "b c"), (3, "a c"))
    assert parse_schedule("[fe|]male", 2) == ((1, "female"), (2, "male"))
    assert parse_schedule("[fe|||]male", 5) == ((1, "female"), (4, "male"), (5, "female"))
    assert parse_schedule("[a|(b:1.1)]", 2) == ((1, "a"), (2, "(b:1.1)"))
    assert parse_schedule("[a|[b|c]]", 4) == ((1, "a"), (2, "c"), (3, "a"), (4, "c"))
    assert parse_schedule("[a|[b:c:3]]", 4) == ((1, "a"), (2, "b"), (3, "a"), (4, "c"))


def test_sd_webuis_own_example_reads_as_it_says() -> None:
    text = (
        "a [mountain:lake:0.25] and [an oak:a christmas tree:0.75][ in foreground::0.6][: in background:0.25] "
        "[shoddy:masterful:0.5]"
    )
    assert parse_schedule(text, 100) == (
        (25, "a mountain and an oak in foreground shoddy"),
        (50, "a lake and an oak in foreground in background shoddy"),
        (60, "a lake and an oak in foreground in background masterful"),
        (75, "a lake and an oak in background masterful"),
        (100, "a lake and a christmas tree in background masterful"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "a [b",
        "a] b",
        "[a:b]",
        "[a:b:c:3]",
        "[a:b:x]",
        "(a|b)",
        "a | b",
        "[a|b:3]",
        "(a]",
        "[(a:b:3]",
        "[a [b:c]:3]",
        "a\\",
    ],
)
def test_brackets_that_mean_nothing_are_words(text: str) -> None:
    assert parse_schedule(text, 10) == ((10, text),)


def test_brackets_inside_stray_ones_keep_their_meaning() -> None:
    assert parse_schedule("[ ( [a:3]", 10) == ((3, "[ ( "), (10, "[ ( a"))
    assert parse_schedule("a | [b:3]", 10) == ((3, "a | "), (10, "a | b"))


@given(likely, st.integers(1, 12))
@example("[a:" * 9 + ":3]" * 9, 5)
def test_a_schedule_covers_every_step_once(text: str, steps: int) -> None:
    entries = parse_schedule(text, steps)
    ends = [end for end, _ in entries]
    assert ends == sorted(set(ends))
    assert (ends[0] >= 1, ends[-1]) == (True, steps)
    assert all(one != other for (_, one), (_, other) in itertools.pairwise(entries))
    assert all(len(words) <= len(text) for _, words in entries)


@given(st.text(st.characters(codec="utf-8", exclude_characters="[]"), max_size=50))
def test_a_text_without_square_brackets_is_its_own_schedule(text: str) -> None:
    assert parse_schedule(text, 10) == ((10, text),)


# Emphasis


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("", [("", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("((a))", [("a", 1.21)]),
        ("(a:1.3)", [("a", 1.3)]),
        ("(a: 1.3 )", [("a", 1.3)]),
        ("[a]", [("a", 1 / 1.1)]),
        ("([a])", [("a", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        ("a) b]", [("a) b]", 1.0)]),
        ("a:1.3)", [("a:1.3)", 1.0)]),
        ("\\(literal\\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        ("a\\\\ \\b", [("a\\ b", 1.0)]),
        ("a BREAK b (c BREAK d)", [("a b ", 1.0), ("c d", 1.1)]),
        ("(a:1.2.3)", [("a", 1.0)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
    ],
)
def test_brackets_give_weight(text: str, expected: list[tuple[str, float]]) -> None:
    found = parse_prompt_attention(text)
    assert [words for words, _ in found] == [words for words, _ in expected]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in expected])


@given(likely)
@example("(a:" + "9" * 400 + ")")
@example("(" * 500 + "a" + ":99999)" * 400)
def test_weights_are_numbers_and_neighbours_differ(text: str) -> None:
    found = parse_prompt_attention(text)
    assert found
    assert all(abs(weight) < float("inf") for _, weight in found)
    assert all(one != other for (_, one), (_, other) in itertools.pairwise(found))


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a  ((red:1.2)) [fox] ", "a red fox"),
        ("a (cat\\)", "a cat)"),
        ("one\n (two)\t three ", "one\ntwo three"),
        ("a cat :1.2 AND a dog AND a fox:-.8", "a cat, a dog, a fox"),
        ("a cat, AND (a dog:1.2)", "a cat, a dog"),
        ("AND a AND 5", "a, 5"),
        ("a LAND at 12:30", "a LAND at 12:30"),
        ("a BREAK b", "a b"),
        ("1) a, 2) b :)", "1) a, 2) b :)"),
    ],
)
def test_plain_words_are_what_is_left_without_the_syntax(text: str, words: str) -> None:
    assert strip_emphasis(text) == words


@given(likely)
def test_no_opening_bracket_is_left_but_those_after_a_backslash(text: str) -> None:
    words = strip_emphasis(text)
    for bracket in "([":
        assert words.count(bracket) <= text.count(f"\\{bracket}")


nested = st.recursive(
    st.sampled_from(["a", " b", ", "]), lambda inner: st.lists(inner).map(lambda parts: f"(({''.join(parts)})[x])")
)


@given(nested)
def test_no_bracket_of_a_pair_is_left(text: str) -> None:
    assert not set(strip_emphasis(text)) & set("()[]")


@given(likely, st.integers(1, 5))
def test_no_text_is_refused(text: str, steps: int) -> None:
    words, uses = extract_loras(text)
    assert all(isinstance(name, str) and isinstance(weight, float) for name, weight in uses)
    assert all(strip_emphasis(part) == strip_emphasis(part).strip() for _, part in parse_schedule(words, steps))


# Hostile texts


def count_lines_run(function: Callable[[], object]) -> int:
    """Count the lines of the module that run."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename not in {prompt.__file__, prompt_editing.__file__}:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


BRACKETS = ["(", "[", "([", "(a", "[a|", "[a:", "[a|b]", "[a:b]", "[a:b:1]", "(a:2)", ")", "|", ":"]
HOSTILE = [*BRACKETS, "\\", "a AND ", "<lora:a", "<lora:a>"]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("read", [extract_loras, parse_prompt_attention, lambda text: parse_schedule(text, 4)])
def test_a_text_twice_as_long_takes_twice_the_work(read: Callable[[str], object], hostile: str) -> None:
    short, long = (count_lines_run(lambda text=hostile * times: read(text)) for times in (300, 600))  # type: ignore[misc]
    # A little more than twice: emphasis is 64 levels deep (the limit) only after the first brackets.
    assert long <= 2.2 * short


@pytest.mark.parametrize(
    ("opener", "closer"),
    [
        ("(", ")"),
        ("[", "]"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("[a:", ":3]"), ("[a|", "]"), ("([", "])"), ("(a:", ")"))
        ),
    ],
)
def test_brackets_may_be_as_deep_as_the_text_is_long(opener: str, closer: str) -> None:
    for text in (opener * 20_000, opener * 20_000 + "x" + closer * 20_000, closer * 20_000):
        assert len(parse_schedule(text, 4)) <= 4
        assert len(parse_prompt_attention(text)) <= 200
        assert extract_loras(text) == (text, ())


# A quadratic search over a run of these would take minutes.
@pytest.mark.parametrize("hostile", [" ", "<lora:", "a", "<a", ":", ": ", ":1", "1", "BREAK ", "AND ", "\\", ",", "\n"])
def test_long_runs_are_read(hostile: str) -> None:
    text = "." + hostile * 100_000 + "."
    assert len(strip_emphasis(parse_schedule(extract_loras(text)[0], 1)[0][1])) <= len(text)


# Applied emphasis


@pytest.mark.parametrize(
    ("text", "words", "spans"),
    [
        ("a red circle", "a red circle", ()),
        ("a (red:1.5) circle", "a red circle", ((2, 5, 1.5),)),
        ("a (red circle:0.5)", "a red circle", ((2, 12, 0.5),)),
        ("(a) (b:2)", "a b", ((0, 1, 1.1), (2, 3, 2.0))),
        (r"\(not\) (so)", "(not) so", ((6, 8, 1.1),)),
        ("  (two\n  lines:2)  ", "two\nlines", ((0, 9, 2.0),)),
    ],
)
def test_emphasis_is_told_by_the_letters_it_is_on(text: str, words: str, spans: tuple[Any, ...]) -> None:
    found, places = parse_emphasis(text)
    assert (found, [(start, end) for start, end, _ in places]) == (words, [(start, end) for start, end, _ in spans])
    assert [weight for *_, weight in places] == pytest.approx([weight for *_, weight in spans])


@given(st.text(st.sampled_from("ab ()[]:1.2\\\n\t") | st.characters(codec="utf-8"), max_size=60))
def test_emphasis_never_points_outside_the_words(text: str) -> None:
    words, spans = parse_emphasis(text)
    assert words == words.strip()
    ends = [0, *(edge for start, end, _ in spans for edge in (start, end)), len(words)]
    assert ends == sorted(ends)
    assert all(start < end and weight != 1.0 for start, end, weight in spans)
