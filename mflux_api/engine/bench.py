"""Times of a model on this machine: stages, caches, PNG, and mflux's own pipeline on the same weights."""

import io
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import psutil
from mflux.callbacks.callback_registry import CallbackRegistry
from mflux.models.common.compute_precision import ComputePrecision
from mflux.models.common.config import ModelConfig
from mflux.models.common.vae.block_decoder import VAEBlockDecoder
from mflux.models.flux2.variants.txt2img.flux2_klein import Flux2Klein
from PIL import Image

from mflux_api.engine.flux2.latents import text_positions
from mflux_api.engine.flux2.pipeline import Pipeline
from mflux_api.engine.model import Model, load_model
from mflux_api.engine.precision import computing_in, device_name
from mflux_api.ipc.messages import Picture, Step
from mflux_api.pixels.png import encode_png

PROMPT = "a beautiful sunset over mountains"
STEPS = 4
SEED = 1
MEBIBYTE = 1024**2
# Two levels of 255: strips and whole rows round differently.
SAME_PICTURE = 2


@dataclass(frozen=True)
class Figure:
    """A line of the table. `value` is None where there is nothing to compare."""

    name: str
    value: float | None
    unit: str
    note: str = ""

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.1f}"
        return f"{self.name:34} {value:>9} {self.unit:3}   {self.note}".rstrip()


def run(name: str, sizes: Sequence[int], repeats: int, models_dir: Path) -> Iterator[Figure]:
    """The lines of the table: medians of `repeats` runs after one that is thrown away."""
    note = f"on {device_name()} of {os.cpu_count()} cores; {name}, {STEPS} steps, medians of {repeats}"
    yield Figure("machine's load", os.getloadavg()[0], "", note)
    yield _time("import", _import_seconds())
    yield _time("load", _median(lambda: load_model(name, models_dir=models_dir), repeats))
    model = load_model(name, models_dir=models_dir)
    yield from _prompts(model, repeats)
    for size in sizes:
        yield from _painting(model, size, repeats)
    # Before mflux paints: what follows is no longer ours alone.
    yield Figure("process (RSS)", psutil.Process().memory_info().rss / MEBIBYTE, "MiB")
    for size in sizes:
        yield from _against_mflux(model, size, repeats)


def _prompts(model: Model, repeats: int) -> Iterator[Figure]:
    conditioning = model.pipeline.conditioning
    miss = _median(lambda: conditioning.compute(PROMPT), repeats)
    conditioning.encode(PROMPT)
    hit = _median(lambda: conditioning.encode(PROMPT), repeats)
    yield _time("prompt, not remembered", miss)
    yield _time("prompt, remembered", hit)


def _painting(model: Model, size: int, repeats: int) -> Iterator[Figure]:
    steps: list[float] = []
    pictures: list[Picture] = []

    def paint() -> None:
        on_event = lambda event: steps.append(event.seconds) if isinstance(event, Step) else None  # noqa: E731
        pictures.extend(_paint(model, size, on_event))

    mx.reset_peak_memory()
    total = _median(paint, repeats)
    image = pictures[-1].image
    ours = _median(lambda: encode_png(image, {}), repeats)
    pillow = _median(lambda: image.save(io.BytesIO(), "PNG"), repeats)
    yield _time(f"{size}: a step", statistics.median(steps[STEPS:]))
    yield _time(f"{size}: decode", statistics.median(picture.timings["decoding"] for picture in pictures[1:]))
    yield _time(f"{size}: PNG", ours, f"{ours / pillow:.2f} of Pillow's {pillow * 1000:.1f} ms")
    yield _time(f"{size}: picture", total)
    yield Figure(f"{size}: peak of MLX", mx.get_peak_memory() / MEBIBYTE, "MiB")


def _against_mflux(model: Model, size: int, repeats: int) -> Iterator[Figure]:
    theirs = BareMflux(model.pipeline)
    arms: dict[str, Callable[[], Image.Image]] = {
        "ours": lambda: _paint(model, size, None)[0].image,
        "mflux, eager": lambda: theirs.paint(size, compiled=False),
    }
    # MLX compiles for the CPU with the system's compiler, for a GPU by itself.
    if device_name() != "cpu" or shutil.which("g++"):
        arms["mflux"] = lambda: theirs.paint(size, compiled=True)
    images = [np.asarray(arm(), np.int16) for arm in arms.values()]
    if max(np.abs(images[0] - image).max() for image in images) > SAME_PICTURE:
        yield Figure(f"{size}: mflux", None, "", "it paints another picture, so its time is not compared")
        return
    seconds = _interleaved(arms, repeats)
    for name in list(arms)[1:]:
        yield _time(f"{size}: {name}", seconds[name], f"ours takes {seconds['ours'] / seconds[name]:.2f} of it")


class BareMflux(Flux2Klein):  # type: ignore[misc]
    """mflux's own pipeline around the same modules. It encodes the prompt on every call, as mflux does."""

    def __init__(self, pipeline: Pipeline) -> None:
        super(Flux2Klein, self).__init__()
        self.pipeline = pipeline
        self.transformer = pipeline.transformer
        self.vae = pipeline.autoencoder.vae
        self.model_config = ModelConfig.flux2_klein_4b()
        self.callbacks = CallbackRegistry()
        self.tiling_config = None
        self.bits = pipeline.bits
        self.lora_paths: list[str] = []
        self.lora_scales: list[float] = []
        self.compute_precision = ComputePrecision()

    def paint(self, size: int, *, compiled: bool) -> Image.Image:
        mode = self.vae.decode_mode
        # What mflux decodes with; ours goes block by block without strips in float32.
        self.vae.decode_mode = VAEBlockDecoder.LOW_MEMORY
        (mx.enable_compile if compiled else mx.disable_compile)()
        try:
            with computing_in(self.pipeline.dtype):
                made = self.generate_image(seed=SEED, prompt=PROMPT, num_inference_steps=STEPS, height=size, width=size)
        finally:
            self.vae.decode_mode = mode
            mx.enable_compile()
        image: Image.Image = made.image
        return image

    def _encode_prompt_pair(self, *, prompt: str, **_: Any) -> tuple[mx.array, mx.array, None, None]:
        # The same, with this checkpoint's own layers and length instead of the published klein's.
        embedding = self.pipeline.conditioning.compute(prompt)
        return embedding, text_positions(embedding.shape[1])[None], None, None


def _paint(model: Model, size: int, on_event: Callable[[Any], None] | None) -> list[Picture]:
    return model.generate(PROMPT, width=size, height=size, steps=STEPS, seeds=(SEED,), on_event=on_event)


def _interleaved(arms: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Medians of arms run there and back (ABC CBA, always in pairs): a machine that slows down slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(repeats + repeats % 2):
        for name in list(arms)[:: 1 if turn % 2 == 0 else -1]:
            seconds[name].append(_seconds(arms[name]))
    return {name: statistics.median(values) for name, values in seconds.items()}


def _median(action: Callable[[], Any], repeats: int) -> float:
    action()
    return statistics.median(_seconds(action) for _ in range(repeats))


def _seconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _import_seconds() -> float:
    code = "import time; t = time.perf_counter(); import mflux_api.engine.model; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def _time(name: str, seconds: float, note: str = "") -> Figure:
    return Figure(name, seconds * 1000, "ms", note)
