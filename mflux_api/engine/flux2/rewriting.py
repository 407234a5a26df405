"""A prompt put into more words by the model's own text encoder (`prompt_upsampling`)."""

from collections.abc import Generator
from pathlib import Path

from mflux_api.checkpoints.language_model import LONGEST_ANSWER, LONGEST_QUESTION
from mflux_api.checkpoints.safetensors import read_json_if_present
from mflux_api.engine.flux2.chats import Chat
from mflux_api.engine.flux2.writing import Writer
from mflux_api.ipc.messages import Writing

INSTRUCTION = (
    "You rewrite prompts for an image generator. Turn the user's prompt into one paragraph of 40 to 120 words that "
    "describes a single picture: first the subject and what it does, then the surroundings, the light, the colours, "
    "the composition, and the medium or style. Keep every fact of the prompt. Keep words in quotation marks exactly as "
    "they are, with their quotation marks. Add only what fits. Write in the language of the prompt. Answer with the "
    "paragraph and nothing else."
)
# Who changes a picture does not want it described anew.
EDIT_INSTRUCTION = (
    "You rewrite instructions for an image editor. The user says how pictures are to be changed; you do not see them. "
    "Say the same in one to three clear sentences: what changes, how it looks then, and that all else stays as it is. "
    "Keep every fact, and words in quotation marks exactly as they are. Invent nothing that is in the pictures. Write "
    "in the language of the user. Answer with these sentences and nothing else."
)
# A word is said of the work each time so many tokens are there.
TOKENS_EACH = 8
THOUGHTS = ("<think>", "</think>")
QUOTES = "\"'“”„«»"


def rewrite(writer: Writer, chat: Chat, folder: Path, prompt: str, *, edit: bool) -> Generator[Writing, None, str]:
    """Yields how far it is; returns the new prompt, or the old one where nothing came of it or it is long already.

    `folder`: the text encoder's. Always the same for the same prompt: each token is the likeliest.
    """
    ids = chat.asked(EDIT_INSTRUCTION if edit else INSTRUCTION, prompt)
    if len(ids) > LONGEST_QUESTION:
        return prompt
    yield Writing(tokens=0)
    found: list[int] = []
    for token in writer.write(ids, stops(chat, folder), LONGEST_ANSWER):
        found.append(token)
        if len(found) % TOKENS_EACH == 0:
            yield Writing(tokens=len(found))
    text = str(chat.tokenizer.decode(spoken(found, chat), skip_special_tokens=True))
    return tidied(text, whole=len(found) < LONGEST_ANSWER) or prompt


def stops(chat: Chat, folder: Path) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's, and those of generation_config.json."""
    named = read_json_if_present(folder / "generation_config.json").get("eos_token_id")
    listed = named if isinstance(named, list) else [named]
    return frozenset(int(token) for token in [*listed, chat.tokenizer.eos_token_id] if token is not None)


def spoken(ids: list[int], chat: Chat) -> list[int]:
    """Without thoughts, should there be any all the same."""
    begin, end = (chat.tokenizer.convert_tokens_to_ids(mark) for mark in THOUGHTS)
    if end in ids:
        return ids[len(ids) - ids[::-1].index(end) :]
    return ids[: ids.index(begin)] if begin in ids else ids


def tidied(text: str, *, whole: bool) -> str:
    """An answer as a prompt: one line without quotation marks around it; cut to whole sentences if not `whole`."""
    words = " ".join(text.split())
    if not whole:
        # The last letter may be half there, too.
        words = words[: words.rindex(".") + 1] if "." in words else words.rstrip("\ufffd")
    if len(words) > 1 and words[0] in QUOTES and words[-1] in QUOTES and not _quoted(words[1:-1]):
        words = words[1:-1].strip()
    return words


def _quoted(words: str) -> bool:
    """Whether there are more quotation marks: those at the ends may belong to two different quotations."""
    return any(mark in words for mark in QUOTES if mark != "'")
