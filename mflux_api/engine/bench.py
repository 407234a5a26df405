"""Benchmark a model on this machine: stages, caches, PNG, and mflux's own pipeline on the same weights."""

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

from mflux_api.engine.flux2.latents import make_text_positions
from mflux_api.engine.flux2.pipeline import Pipeline
from mflux_api.engine.model import Model, load_model
from mflux_api.engine.precision import device_name, use_dtype
from mflux_api.ipc.messages import Picture, Step
from mflux_api.pixels.png import encode_png
from mflux_api.resources import make_child_environ

PROMPT = "a beautiful sunset over mountains"
STEPS = 4
SEED = 1
MEBIBYTE = 1024**2
# Largest difference between equal pictures, in levels of 255: allows for rounding.
SAME_PICTURE = 2


@dataclass(frozen=True)
class Measurement:
    """One line of the table. `value` is None if there is nothing to compare."""

    name: str
    value: float | None
    unit: str
    note: str = ""

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:.1f}"
        return f"{self.name:34} {value:>9} {self.unit:3}   {self.note}".rstrip()


def run_benchmark(name: str, sizes: Sequence[int], repeats: int, models_dir: Path) -> Iterator[Measurement]:
    """Yield the lines of the table. Each value is the median of `repeats` runs after one warm-up run."""
    note = f"on {device_name()} of {os.cpu_count()} cores; {name}, {STEPS} steps, medians of {repeats}"
    yield Measurement("machine's load", os.getloadavg()[0], "", note)
    yield _make_time_measurement("import", _measure_import())
    yield _make_time_measurement("load", _measure_median(lambda: load_model(name, models_dir=models_dir), repeats))
    model = load_model(name, models_dir=models_dir)
    yield from _measure_prompts(model, repeats)
    for size in sizes:
        yield from _measure_painting(model, size, repeats)
    # Read before mflux paints, because its memory counts from then on.
    yield Measurement("process (RSS)", psutil.Process().memory_info().rss / MEBIBYTE, "MiB")
    for size in sizes:
        yield from _compare_with_mflux(model, size, repeats)


def _measure_prompts(model: Model, repeats: int) -> Iterator[Measurement]:
    conditioning = model.pipeline.prompt_encoder
    miss = _measure_median(lambda: conditioning.compute_embedding(PROMPT), repeats)
    conditioning.encode(PROMPT)
    hit = _measure_median(lambda: conditioning.encode(PROMPT), repeats)
    yield _make_time_measurement("prompt, not remembered", miss)
    yield _make_time_measurement("prompt, remembered", hit)


def _measure_painting(model: Model, size: int, repeats: int) -> Iterator[Measurement]:
    steps: list[float] = []
    pictures: list[Picture] = []

    def paint() -> None:
        on_event = lambda event: steps.append(event.seconds) if isinstance(event, Step) else None  # noqa: E731
        pictures.extend(_generate(model, size, on_event))

    mx.reset_peak_memory()
    total = _measure_median(paint, repeats)
    image = pictures[-1].image
    ours = _measure_median(lambda: encode_png(image, {}), repeats)
    pillow = _measure_median(lambda: image.save(io.BytesIO(), "PNG"), repeats)
    yield _make_time_measurement(f"{size}: a step", statistics.median(steps[STEPS:]))
    yield _make_time_measurement(
        f"{size}: decode", statistics.median(picture.timings["decoding"] for picture in pictures[1:])
    )
    yield _make_time_measurement(f"{size}: PNG", ours, f"{ours / pillow:.2f} of Pillow's {pillow * 1000:.1f} ms")
    yield _make_time_measurement(f"{size}: picture", total)
    yield Measurement(f"{size}: peak of MLX", mx.get_peak_memory() / MEBIBYTE, "MiB")


def _compare_with_mflux(model: Model, size: int, repeats: int) -> Iterator[Measurement]:
    theirs = MfluxReference(model.pipeline)
    arms: dict[str, Callable[[], Image.Image]] = {
        "ours": lambda: _generate(model, size, None)[0].image,
        "mflux, eager": lambda: theirs.paint(size, compiled=False),
    }
    # For the CPU, MLX compiles with the system's compiler. For a GPU it needs none.
    if device_name() != "cpu" or shutil.which("g++"):
        arms["mflux"] = lambda: theirs.paint(size, compiled=True)
    images = [np.asarray(arm(), np.int16) for arm in arms.values()]
    if max(np.abs(images[0] - image).max() for image in images) > SAME_PICTURE:
        yield Measurement(f"{size}: mflux", None, "", "it paints another picture, so its time is not compared")
        return
    seconds = _measure_interleaved(arms, repeats)
    for name in list(arms)[1:]:
        yield _make_time_measurement(
            f"{size}: {name}", seconds[name], f"ours takes {seconds['ours'] / seconds[name]:.2f} of it"
        )


class MfluxReference(Flux2Klein):  # type: ignore[misc]
    """mflux's own pipeline with the same modules. It encodes the prompt on every call, as mflux does."""

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
        # mflux's own way of decoding.
        self.vae.decode_mode = VAEBlockDecoder.LOW_MEMORY
        (mx.enable_compile if compiled else mx.disable_compile)()
        try:
            with use_dtype(self.pipeline.dtype):
                made = self.generate_image(seed=SEED, prompt=PROMPT, num_inference_steps=STEPS, height=size, width=size)
        finally:
            self.vae.decode_mode = mode
            mx.enable_compile()
        image: Image.Image = made.image
        return image

    def _encode_prompt_pair(self, *, prompt: str, **_: Any) -> tuple[mx.array, mx.array, None, None]:
        # Like mflux's, but with this checkpoint's own layers and length instead of those of the published klein.
        embedding = self.pipeline.prompt_encoder.compute_embedding(prompt)
        return embedding, make_text_positions(embedding.shape[1])[None], None, None


def _generate(model: Model, size: int, on_event: Callable[[Any], None] | None) -> list[Picture]:
    return model.generate(PROMPT, width=size, height=size, steps=STEPS, seeds=(SEED,), on_event=on_event)


def _measure_interleaved(arms: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each arm.

    The arms run in the order ABC CBA, always in pairs, so that a machine that slows down affects all of them equally.
    """
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(repeats + repeats % 2):
        for name in list(arms)[:: 1 if turn % 2 == 0 else -1]:
            seconds[name].append(_measure_seconds(arms[name]))
    return {name: statistics.median(values) for name, values in seconds.items()}


def _measure_median(action: Callable[[], Any], repeats: int) -> float:
    action()
    return statistics.median(_measure_seconds(action) for _ in range(repeats))


def _measure_seconds(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _measure_import() -> float:
    code = "import time; t = time.perf_counter(); import mflux_api.engine.model; print(time.perf_counter() - t)"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, env=make_child_environ(), capture_output=True, text=True, check=True)
    return float(done.stdout)


def _make_time_measurement(name: str, seconds: float, note: str = "") -> Measurement:
    return Measurement(name, seconds * 1000, "ms", note)
