"""Paint the model card's sheet of samples."""

import argparse
from pathlib import Path

from PIL import Image

from painters import DiffusersPainter, Order

PROMPTS = (
    "a beautiful sunset over mountains",
    "a starry night over the sea",
    "sunrise over a lake with trees",
    "a sunny day over a green field with a house",
    "golden hour over the desert",
    "a snowy landscape at sunset with pine trees and a cottage",
    "a large red circle on a white background",
    "a yellow star on a blue background",
    "a green heart in the top left on a pink background",
    "a purple square next to an orange triangle on a white background",
    "a cyan ring above a brown diamond on a black background",
    "a small white cross at the bottom on a red background",
)
COLUMNS = 4


def main() -> None:
    """Paint every prompt at 256x256 in four steps and paste them side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="checkpoint folder")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rows = -(-len(PROMPTS) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * 256, rows * 256))
    orders = [Order(prompt, 256, 256, args.seed + number) for number, prompt in enumerate(PROMPTS)]
    for number, picture in enumerate(DiffusersPainter(args.model, steps=4).paint(orders)):
        sheet.paste(picture, (number % COLUMNS * 256, number // COLUMNS * 256))
    (args.model / "samples").mkdir(exist_ok=True)
    sheet.save(args.model / "samples" / "sheet.jpg", quality=88)


if __name__ == "__main__":
    main()
