"""SD-WebUI's prompt syntax: adapters by tag, words that change with the step, emphasis.

As its modules/extra_networks.py and modules/prompt_parser.py understand it, in linear time and without recursion.
Nothing here raises on any text: what means nothing is words.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

TAG = re.compile(r"<(lora|lyco|hypernet):([^<>]+)>", re.I)
LORAS = {"lora", "lyco"}
# What of the text beside a tag goes with it.
BESIDE = " \t\r\n,"

ATTENTION = re.compile(r"\\[()\[\]\\]|\\|[(\[]|:\s*([+-]?[.\d]+)\s*\)|[)\]]|[^\\()\[\]:]+|:")
MORE, LESS = 1.1, 1 / 1.1
# Brackets in brackets that count, and the largest number: nobody needs more, and weights stay finite.
DEEPEST, LARGEST = 64, 1000.0
BREAK, AND = re.compile(r"\bBREAK\b"), re.compile(r"\bAND\b")
PART_WEIGHT = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")

TOKEN = re.compile(r"[()\[\]:|]|(?:[^\\()\[\]:|]|\\.)++|\\", re.S)
CLOSER = {"(": ")", "[": "]"}
NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")


def loras(text: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    """The text without `<lora:name:weight>`, and (name, weight) of each; a weight that is missing or no number is 1.

    `<lyco:...>` is the same, `<hypernet:...>` is dropped. Of the blanks and commas around a tag one remains.
    """
    words, found, at = [], [], 0
    for tag in TAG.finditer(text):
        words.append(text[at : tag.start()])
        at = tag.end()
        name, _, rest = tag[2].partition(":")
        if tag[1].lower() in LORAS and name.strip():
            found.append((name.strip(), _number(rest.partition(":")[0])))
    return _rejoined([*words, text[at:]]), tuple(found)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 1.0
    return number if math.isfinite(number) else 1.0


def _rejoined(pieces: Sequence[str]) -> str:
    """What stood around the tags."""
    done, gap = [pieces[0].rstrip(BESIDE)], _tail(pieces[0])
    for piece in pieces[1:]:
        words = piece.lstrip(BESIDE)
        gap += piece[: len(piece) - len(words)]
        if words:
            done += [_joint(gap) if done[-1] else "", words.rstrip(BESIDE)]
            gap = _tail(words)
    return "".join(done) + (gap if len(pieces) == 1 or pieces[-1].strip(BESIDE) else "")


def _tail(text: str) -> str:
    return text[len(text.rstrip(BESIDE)) :]


def _joint(gap: str) -> str:
    blank = "\n" if "\n" in gap else " "
    return f",{blank}" if "," in gap else blank if gap else ""


def weights(text: str) -> tuple[tuple[str, float], ...]:
    """(words, weight) in order: `(a)` 1.1, `[a]` 1 / 1.1, `(a:1.3)` 1.3, and brackets in brackets multiply.

    A bracket after `\\` is one of the words, and so is a closing one without its opening one. An opening one without
    a closing one reaches to the end. `BREAK` is a blank. Neighbours have different weights; ("", 1.0) for no words.
    """
    emphasis = Emphasis()
    for token in ATTENTION.finditer(text):
        emphasis.take(token[0], token[1])
    return emphasis.result()


@dataclass
class Emphasis:
    """Words and their weights while brackets open and close. `open`: where each bracket began, innermost last."""

    words: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    open: dict[str, list[int]] = field(default_factory=lambda: {"(": [], "[": []})

    def take(self, token: str, weight: str | None) -> None:
        if token.startswith("\\"):
            self._add(token[1:])
        elif token in self.open:
            self.open[token].append(len(self.words))
        elif token.endswith(")") and self.open["("]:
            self._close("(", MORE if weight is None else max(-LARGEST, min(LARGEST, _number(weight))))
        elif token == "]" and self.open["["]:
            self._close("[", LESS)
        else:
            self._add(_unbroken(token))

    def _add(self, words: str) -> None:
        self.words.append(words)
        self.weights.append(1.0)

    def _close(self, opener: str, weight: float) -> None:
        start = self.open[opener].pop()
        if len(self.open[opener]) < DEEPEST:
            for at in range(start, len(self.words)):
                self.weights[at] *= weight

    def result(self) -> tuple[tuple[str, float], ...]:
        for opener, weight in (("(", MORE), ("[", LESS)):
            while self.open[opener]:
                self._close(opener, weight)
        merged: list[tuple[list[str], float]] = []
        for words, weight in zip(self.words, self.weights, strict=True):
            if not merged or merged[-1][1] != weight:
                merged.append(([], weight))
            merged[-1][0].append(words)
        return tuple(("".join(words), weight) for words, weight in merged) or (("", 1.0),)


def _unbroken(words: str) -> str:
    first, *others = BREAK.split(words)
    return " ".join([first.rstrip(), *(part.strip() for part in others[:-1]), others[-1].lstrip()]) if others else first


def plain(text: str) -> str:
    """The words alone, without weights. Blanks are tidied; lines stay lines.

    SD-WebUI's `a :1.2 AND b :0.8` is "a, b". What `schedule` understands is to be taken out before.
    """
    words = "".join(words for words, _ in weights(_composed(text)))
    return "\n".join(" ".join(line.split()) for line in words.split("\n")).strip()


def _composed(text: str) -> str:
    """A number after a colon at the end is a weight only where there are parts: "at 12:30" keeps its time."""
    parts = AND.split(text)
    if len(parts) == 1:
        return text
    return ", ".join(filter(None, map(_unweighted, parts)))


def _unweighted(part: str) -> str:
    words, colon, number = part.rpartition(":")
    return (words if colon and PART_WEIGHT.fullmatch(number.strip()) else part).strip(BESIDE)


def schedule(text: str, steps: int) -> tuple[tuple[int, str], ...]:
    """(last step, text up to and with it) in order, counted from 1; the last entry is of `steps`.

    `[a:b:0.3]` is a, and after this share of the steps b; `[a:b:3]` after this step; `[b:3]` nothing and then b,
    `[a::3]` a and then nothing; `[a|b]` a and b in turn. A number is a share where it has a point, as in SD-WebUI:
    1.0 are all steps. Brackets that mean nothing of this are words, and make words of those around them.
    """
    brackets = Brackets(steps)
    for token in TOKEN.finditer(text):
        brackets.take(token[0])
    brackets.give_up()
    merged: list[tuple[int, str]] = []
    for step in sorted(brackets.switches):
        words = _at(brackets.words, step)
        if merged and merged[-1][1] == words:
            merged.pop()
        merged.append((step, words))
    return tuple(merged)


@dataclass(frozen=True)
class Timed:
    """`[before:after:when]`."""

    before: "Nodes"
    after: "Nodes"
    when: int

    def at(self, step: int) -> "Nodes":
        return self.before if step <= self.when else self.after


@dataclass(frozen=True)
class Turns:
    """`[a|b|c]`."""

    choices: "list[Nodes]"

    def at(self, step: int) -> "Nodes":
        return self.choices[(step - 1) % len(self.choices)]


Node = str | Timed | Turns | list["Node"]
Nodes = list[Node]


def _at(nodes: Nodes, step: int) -> str:
    words: list[str] = []
    todo: list[Node] = [nodes]
    while todo:
        node = todo.pop()
        if isinstance(node, str):
            words.append(node)
        else:
            todo.extend(reversed(node if isinstance(node, list) else node.at(step)))
    return "".join(words)


@dataclass
class Bracket:
    """An open bracket: what stands between its separators so far."""

    opener: str
    parts: list[Nodes] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)

    def as_words(self) -> Nodes:
        nodes: Nodes = [self.opener, *self.parts[0]]
        for separator, part in zip(self.separators, self.parts[1:], strict=True):
            nodes += [separator, *part]
        return nodes

    def number(self) -> str | None:
        """The last part, where that is one."""
        words = self.parts[-1]
        match = NUMBER.fullmatch(words[0]) if len(words) == 1 and isinstance(words[0], str) else None
        return match[1] if match else None


class Brackets:
    """Token by token, with the open brackets on a stack. `switches`: steps with which a text ends."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.words: Nodes = []
        self.open: list[Bracket] = []
        self.switches = {steps}

    def take(self, token: str) -> None:
        if token in CLOSER:
            self.open.append(Bracket(token))
        elif token in CLOSER.values():
            self._close(token)
        elif token in (":", "|") and self.open:
            self.open[-1].separators.append(token)
            self.open[-1].parts.append([])
        else:
            self._add(token)

    def _add(self, node: Node) -> None:
        (self.open[-1].parts[-1] if self.open else self.words).append(node)

    def give_up(self) -> None:
        """All that is open is words: a bracket with a stray one inside is stray itself."""
        for bracket in self.open:
            self.words += bracket.as_words()
        self.open.clear()

    def _close(self, closer: str) -> None:
        bracket = self.open[-1] if self.open else None
        node = self._meaning(bracket) if bracket and CLOSER[bracket.opener] == closer else None
        if node is None:
            self.give_up()
            self.words.append(closer)
        else:
            self.open.pop()
            self._add(node)

    def _meaning(self, bracket: Bracket) -> Node | None:
        """None where the separators make no sense."""
        colons, bars = bracket.separators.count(":"), bracket.separators.count("|")
        if not bars and colons <= (bracket.opener == "("):
            return [*bracket.as_words(), CLOSER[bracket.opener]]
        if bracket.opener == "[" and not colons:
            self.switches.update(range(1, self.steps + 1))
            return Turns(bracket.parts)
        number = bracket.number() if bracket.opener == "[" and not bars and colons <= 2 else None
        return None if number is None else self._timed(bracket, number)

    def _timed(self, bracket: Bracket, number: str) -> Timed:
        when = int(max(0, min(self.steps, float(number) * (self.steps if "." in number else 1))))
        if when:
            self.switches.add(when)
        *before, after, _ = bracket.parts
        return Timed(before[0] if before else [], after, when)
