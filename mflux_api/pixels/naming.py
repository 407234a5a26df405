"""File names and `.prompt` files of the FLUX.2 web server: `flux2_{date}_{time}_{id}.png`."""

import re
import time
from collections.abc import Mapping

NAME = re.compile(r"flux2_\d{8}_\d{6}_[0-9a-f]{8}\.png")


def make_picture_name(timestamp: float, token: str) -> str:
    """Name a picture's file. `timestamp`: seconds since 1970, written in local time; `token`: 8 hexadecimal digits."""
    return f"flux2_{time.strftime('%Y%m%d_%H%M%S', time.localtime(timestamp))}_{token}.png"


def format_sidecar(
    *, raw: str, prompt: str, size: tuple[int, int], seed: int, steps: int, timings: Mapping[str, float]
) -> str:
    """Format a `.prompt` file, one fact per line. `timings`: seconds of "encoding", "diffusion" and "decoding"."""
    stages = {"encoding": "encoding", "diffusion": "diffusion", "decoding": "save"}
    lines = {
        "Raw input": raw,
        "Prompt": prompt,
        "Dimensions": f"{size[0]}x{size[1]}",
        "Seed": seed,
        "Steps": steps,
        "Timings": ", ".join(f"{shown}={timings.get(stage, 0.0):.2f}s" for stage, shown in stages.items()),
    }
    # Line breaks in a prompt become blanks, so that they cannot look like another fact.
    return "".join(f"# {name}: {' '.join(str(value).split())}\n" for name, value in lines.items())
