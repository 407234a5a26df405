"""Make tests/reference/writings.json: text that transformers generates with the tiny random text encoders.

Greedy search in float32, with the checkpoints made by make.py. Random models soon repeat themselves, so the file also
has the likeliest next token after each token of a random sequence. Run this in make.py's environment.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, Mistral3ForConditionalGeneration, Qwen3ForCausalLM

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests" / "reference"
QUESTIONS = ("a red circle", "a long prompt, in which there is more than one thing to be said of a blue square")
CHECKPOINTS: dict[str, Any] = {
    "klein": Qwen3ForCausalLM,
    "odd": Qwen3ForCausalLM,
    "dev": Mistral3ForConditionalGeneration,
    "dev-odd": Mistral3ForConditionalGeneration,
}
TOKENS = 48
CROWD = 96
# Two float32 libraries agree to 1e-5 on such models. Where the two likeliest tokens are closer, either may be chosen.
CLEAR = 1e-3


def main() -> None:
    torch.set_num_threads(1)
    writings = [write(name, kind, words) for name, kind in CHECKPOINTS.items() for words in QUESTIONS]
    (REFERENCE / "writings.json").write_text(json.dumps(writings) + "\n")


def write(name: str, kind: Any, words: str) -> dict[str, Any]:
    folder = REFERENCE / "checkpoints" / name
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    model = kind.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    ids = tokenizer(words, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        found = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=TOKENS,
            eos_token_id=-1,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    check(name, torch.cat(found.logits))
    crowd = torch.randint(32, 512, (CROWD,), generator=torch.Generator().manual_seed(len(words)))
    with torch.no_grad():
        logits = model(input_ids=crowd[None]).logits[0]
    clear = [place for place, gap in enumerate(gaps(logits)) if gap >= CLEAR]
    likeliest = {place: int(logits[place].argmax()) for place in clear}
    new = found.sequences[0, ids.shape[1] :].tolist()
    print(f"{name:8} {len(set(new))} different tokens of {len(new)}, {len(set(likeliest.values()))} of {len(clear)}")
    return {"checkpoint": name, "ids": ids[0].tolist(), "tokens": new, "crowd": crowd.tolist(), "likeliest": likeliest}


def gaps(logits: torch.Tensor) -> list[float]:
    """Return the difference between the two highest logits of each row."""
    best = logits.topk(2, dim=-1).values
    return (best[:, 0] - best[:, 1]).tolist()


def check(name: str, logits: torch.Tensor) -> None:
    if min(gaps(logits)) < CLEAR:
        sys.exit(f"{name}: the logits of the two likeliest tokens differ by only {min(gaps(logits)):.1e}")


if __name__ == "__main__":
    main()
