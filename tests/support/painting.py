"""Helpers that paint small requests, and a painter without a model."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mflux_api.engine.model import Model
from mflux_api.engine.passes import paint
from mflux_api.ipc.messages import PaintingEvent, Picture, Preview, Step, TakeEarlyStop, never_stop_early
from mflux_api.request import EarlyStop, GenerateRequest, Hires, Tiles, count_repaint_steps

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "seeds": (3,)}
WORDS: dict[str, Any] = {"prompt": "a large red circle on a white background", "negative_prompt": "", "guidance": 1.0}
Pixels = NDArray[np.uint8]


def make_request(**changes: Any) -> GenerateRequest:
    return GenerateRequest(**{**WORDS, **SMALL, **changes})


def pixels(image: Image.Image) -> Pixels:
    return np.asarray(image)


def draw_scene(width: int = 64, height: int = 64, turn: int = 0) -> Image.Image:
    """Draw a picture in which no two regions are equal; `turn` (0..2) rotates the colour channels."""
    rows, columns = np.mgrid[0:height, 0:width]
    colours = [rows * 255 // height, columns * 255 // width, (rows + columns) * 255 // (width + height)]
    return Image.fromarray(np.stack(colours[turn:] + colours[:turn], axis=-1).astype(np.uint8))


def white_box_mask(box: tuple[int, int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def paint_events(
    model: Model, ask_cut: TakeEarlyStop = never_stop_early, **changes: Any
) -> Generator[PaintingEvent, None, EarlyStop | None]:
    return paint(model.pipeline, make_request(**changes), ask_cut)


def paint_images(model: Model, ask_cut: TakeEarlyStop = never_stop_early, **changes: Any) -> list[Pixels]:
    found = [event for event in paint_events(model, ask_cut, **changes) if isinstance(event, Picture)]
    return [pixels(picture.image) for picture in found]


def paint_image(model: Model, ask_cut: TakeEarlyStop = never_stop_early, **changes: Any) -> Pixels:
    (only,) = paint_images(model, ask_cut, **changes)
    return only


def distance(one: Pixels, other: Pixels) -> float:
    """Return the mean absolute difference of two pictures' values, 0..255."""
    return float(np.abs(one.astype(int) - other).mean())


def make_hires(width: int = 128, height: int = 128, **changes: Any) -> Hires:
    usual: dict[str, Any] = {"steps": 2, "strength": 0.5, "upscaler": "Lanczos"}
    return Hires(width=width, height=height, **{**usual, **changes})


def tiled_changes(**changes: Any) -> dict[str, Any]:
    """Return the request fields for a tiled repaint: four tiles unless changed."""
    tiles = Tiles(scale=1.75, overlap=16, upscaler="Lanczos")
    return {"source": draw_scene(), "tiles": tiles, "strength": 0.5, **changes}


def cut_after(steps: int, cut: EarlyStop) -> TakeEarlyStop:
    """Ask for an early stop after this many steps: a skip for one picture, an interrupt for all that follow."""
    asked = 0

    def ask_cut() -> EarlyStop | None:
        nonlocal asked
        asked += 1
        return cut if asked == steps or (asked > steps and cut is EarlyStop.INTERRUPT) else None

    return ask_cut


@dataclass
class FakePainter:
    """Return each source unchanged, or a grey picture without one. Records requests and counts closings."""

    requests: list[GenerateRequest] = field(default_factory=list)
    closed: int = 0
    bits: int | None = None
    tint: Callable[[Image.Image], Image.Image] = lambda image: image

    def paint(
        self, request: GenerateRequest, ask_cut: TakeEarlyStop = never_stop_early
    ) -> Generator[PaintingEvent, None, EarlyStop | None]:
        self.requests.append(request)
        cut = None
        try:
            for seed in request.seeds:
                cut = yield from self._paint_one(request, seed, ask_cut)
                if cut is EarlyStop.INTERRUPT:
                    break
        finally:
            self.closed += 1
        return cut

    def _paint_one(
        self, request: GenerateRequest, seed: int, ask_cut: TakeEarlyStop
    ) -> Generator[PaintingEvent, None, EarlyStop | None]:
        size = (request.width, request.height)
        begun = request.source.resize(size) if request.source else Image.new("RGB", size, "grey")
        steps = count_repaint_steps(request.steps, request.strength) if request.source else request.steps
        cut = None
        for number in range(1, steps + 1):
            yield Step(number=number, steps=steps, seed=seed, seconds=0.5)
            cut = ask_cut()
            if cut is not None:
                break
            yield Preview(number=number, seed=seed, image=begun)
        painted = self.tint(begun)
        yield Picture(
            image=painted,
            array=np.asarray(painted, np.float32) / np.float32(255),
            seed=seed,
            timings={"diffusion": 0.5 * steps, "total": 0.5 * steps},
            steps=request.steps,
            guidance=1.0,
        )
        return cut


def paint_blank(painter: FakePainter, ask_cut: TakeEarlyStop = never_stop_early, **changes: Any) -> list[PaintingEvent]:
    with closing(paint(painter, make_request(**changes), ask_cut)) as painting:
        return list(painting)
