"""What people do to a text as they type it: capitals, no punctuation, slips of the finger."""

import re

from phrases import Wording

CAPITAL_SHARE = 0.16
BARE_SHARE = 0.10
SLIP_SHARE = 0.15


def retype(text: str, words: Wording) -> str:
    """The text as somebody else would type it, most often unchanged."""
    if words.chance(BARE_SHARE):
        text = re.sub(r"\s+", " ", re.sub(r"[.,;:!?|()]| - ", " ", text)).strip()
    if words.chance(SLIP_SHARE):
        text = misspell(text, words)
    if words.chance(CAPITAL_SHARE):
        return text.title() if words.chance(0.4) else text.upper()
    if words.chance(0.15):
        return text.lower()
    return text[:1].upper() + text[1:] if words.chance(0.25) else text


def misspell(text: str, words: Wording) -> str:
    """One letter dropped, doubled or swapped in one to three of the longer words."""
    pieces = text.split(" ")
    long = [index for index, piece in enumerate(pieces) if len(piece) > 3 and piece.isalpha()]
    for index in words.rng.permutation(long)[: 1 + int(words.rng.integers(3))]:
        piece = pieces[int(index)]
        at = int(words.rng.integers(1, len(piece) - 1))
        kind = words.pick(("drop", "double", "swap"))
        if kind == "drop":
            piece = piece[:at] + piece[at + 1 :]
        elif kind == "double":
            piece = piece[:at] + piece[at] + piece[at:]
        else:
            piece = piece[:at] + piece[at + 1] + piece[at] + piece[at + 2 :]
        pieces[int(index)] = piece
    return " ".join(pieces)
