"""SD-WebUI's prompt editing: prompts that change with the step.

Follows SD-WebUI's modules/prompt_parser.py, in linear time and without recursion. No text raises an error: invalid
syntax is kept as text.
"""

import re
from dataclasses import dataclass, field

TOKEN = re.compile(r"[()\[\]:|]|(?:[^\\()\[\]:|]|\\.)++|\\", re.S)
CLOSER = {"(": ")", "[": "]"}
NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")


def parse_schedule(text: str, steps: int) -> tuple[tuple[int, str], ...]:
    """Return (last step, text) pairs in order. Each text is used up to and including its last step.

    Steps count from 1; the last pair is for step `steps`. `[a:b:0.3]` is a, and b after this share of the steps.
    `[a:b:3]` changes after step 3. `[b:3]` is nothing, then b; `[a::3]` is a, then nothing. `[a|b]` alternates between
    a and b. As in SD-WebUI, a number with a point is a share of the steps: 1.0 means all steps. Invalid brackets are
    text, and so are the brackets around them.
    """
    brackets = ScheduleParser(steps)
    for token in TOKEN.finditer(text):
        brackets.feed(token[0])
    brackets.flush_open_brackets()
    merged: list[tuple[int, str]] = []
    for step in sorted(brackets.last_steps):
        words = _render(brackets.words, step)
        if merged and merged[-1][1] == words:
            merged.pop()
        merged.append((step, words))
    return tuple(merged)


@dataclass(frozen=True)
class ScheduledPrompt:
    """`[before:after:when]`."""

    before: "Nodes"
    after: "Nodes"
    when: int

    def nodes_at(self, step: int) -> "Nodes":
        return self.before if step <= self.when else self.after


@dataclass(frozen=True)
class AlternatePrompt:
    """`[a|b|c]`."""

    choices: "list[Nodes]"

    def nodes_at(self, step: int) -> "Nodes":
        return self.choices[(step - 1) % len(self.choices)]


Node = str | ScheduledPrompt | AlternatePrompt | list["Node"]
Nodes = list[Node]


def _render(nodes: Nodes, step: int) -> str:
    words: list[str] = []
    todo: list[Node] = [nodes]
    while todo:
        node = todo.pop()
        if isinstance(node, str):
            words.append(node)
        else:
            todo.extend(reversed(node if isinstance(node, list) else node.nodes_at(step)))
    return "".join(words)


@dataclass
class Bracket:
    """An open bracket, with the parts between its separators so far."""

    opener: str
    parts: list[Nodes] = field(default_factory=lambda: [[]])
    separators: list[str] = field(default_factory=list)

    def as_words(self) -> Nodes:
        nodes: Nodes = [self.opener, *self.parts[0]]
        for separator, part in zip(self.separators, self.parts[1:], strict=True):
            nodes += [separator, *part]
        return nodes

    def last_number(self) -> str | None:
        """Return the last part if it is a number, else None."""
        words = self.parts[-1]
        match = NUMBER.fullmatch(words[0]) if len(words) == 1 and isinstance(words[0], str) else None
        return match[1] if match else None


class ScheduleParser:
    """Parser state, with a stack of open brackets. `last_steps`: the steps after which the text may change."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.words: Nodes = []
        self.open: list[Bracket] = []
        self.last_steps = {steps}

    def feed(self, token: str) -> None:
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

    def flush_open_brackets(self) -> None:
        """Turn all open brackets into text. A bracket that contains an unmatched one is text too."""
        for bracket in self.open:
            self.words += bracket.as_words()
        self.open.clear()

    def _close(self, closer: str) -> None:
        bracket = self.open[-1] if self.open else None
        node = self._interpret(bracket) if bracket and CLOSER[bracket.opener] == closer else None
        if node is None:
            self.flush_open_brackets()
            self.words.append(closer)
        else:
            self.open.pop()
            self._add(node)

    def _interpret(self, bracket: Bracket) -> Node | None:
        """Return the meaning of a complete bracket, or None if its separators are invalid."""
        colons, bars = bracket.separators.count(":"), bracket.separators.count("|")
        if not bars and colons <= (bracket.opener == "("):
            return [*bracket.as_words(), CLOSER[bracket.opener]]
        if bracket.opener == "[" and not colons:
            self.last_steps.update(range(1, self.steps + 1))
            return AlternatePrompt(bracket.parts)
        number = bracket.last_number() if bracket.opener == "[" and not bars and colons <= 2 else None
        return None if number is None else self._build_scheduled(bracket, number)

    def _build_scheduled(self, bracket: Bracket, number: str) -> ScheduledPrompt:
        when = int(max(0, min(self.steps, float(number) * (self.steps if "." in number else 1))))
        if when:
            self.last_steps.add(when)
        *before, after, _ = bracket.parts
        return ScheduledPrompt(before[0] if before else [], after, when)
