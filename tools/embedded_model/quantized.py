"""How far quantized pictures are from the float32 ones: a PSNR table. Needs the project's own environment."""

import argparse

import numpy as np
from numpy.typing import NDArray

import mflux_api

PROMPTS = (
    "a beautiful sunset over mountains",
    "a large red circle on a white background",
    "a small blue star in the top left on a yellow background",
    "a green square next to an orange heart",
    "night over a lake with a full moon and stars",
    "sunrise over the sea with a sailboat",
    "a snowy field by day with trees and a house",
    "golden hour in the desert",
)
Pixels = NDArray[np.float32]


def paint(quantize: int | None, size: int) -> list[Pixels]:
    """One picture a prompt."""
    model = mflux_api.load_model("flux2-tiny", quantize=quantize, precision="float32")
    return [
        model.generate(prompt, width=size, height=size, steps=4, seeds=(seed,))[0].array
        for seed, prompt in enumerate(PROMPTS)
    ]


def psnr(first: Pixels, second: Pixels) -> float:
    """Peak signal-to-noise ratio in decibels."""
    return float(10 * np.log10(1 / np.mean((first - second) ** 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    size = parser.parse_args().size
    reference = paint(None, size)
    print("| bits | PSNR, mean | PSNR, worst |\n|---|---|---|")
    for bits in (8, 6, 4, 3):
        found = [psnr(*pair) for pair in zip(reference, paint(bits, size), strict=True)]
        print(f"| {bits} | {np.mean(found):.1f} dB | {min(found):.1f} dB |")


if __name__ == "__main__":
    main()
