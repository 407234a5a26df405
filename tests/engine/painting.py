"""Small requests, what becomes of them, and a painter that paints nothing."""

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mflux_api.engine.model import Model
from mflux_api.engine.passes import paint
from mflux_api.ipc.messages import AskCut, Event, Picture, Preview, Step, never
from mflux_api.request import Cut, GenerateRequest, Hires, Tiles, repaint_steps

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "seeds": (3,)}
WORDS: dict[str, Any] = {"prompt": "a large red circle on a white background", "negative_prompt": "", "guidance": 1.0}
Pixels = NDArray[np.uint8]


def request(**changes: Any) -> GenerateRequest:
    return GenerateRequest(**{**WORDS, **SMALL, **changes})


def pixels(image: Image.Image) -> Pixels:
    return np.asarray(image)


def scene(width: int = 64, height: int = 64, turn: int = 0) -> Image.Image:
    """Nowhere the same, and another for each turn."""
    rows, columns = np.mgrid[0:height, 0:width]
    colours = [rows * 255 // height, columns * 255 // width, (rows + columns) * 255 // (width + height)]
    return Image.fromarray(np.stack(colours[turn:] + colours[:turn], axis=-1).astype(np.uint8))


def white(box: tuple[int, int, int, int], size: tuple[int, int] = (64, 64)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def events(model: Model, ask_cut: AskCut = never, **changes: Any) -> Generator[Event, None, Cut | None]:
    return paint(model.pipeline, request(**changes), ask_cut)


def images(model: Model, ask_cut: AskCut = never, **changes: Any) -> list[Pixels]:
    found = [event for event in events(model, ask_cut, **changes) if isinstance(event, Picture)]
    return [pixels(picture.image) for picture in found]


def image(model: Model, ask_cut: AskCut = never, **changes: Any) -> Pixels:
    (only,) = images(model, ask_cut, **changes)
    return only


def distance(one: Pixels, other: Pixels) -> float:
    """The mean difference of two pictures' values, of 255."""
    return float(np.abs(one.astype(int) - other).mean())


def hires(width: int = 128, height: int = 128, **changes: Any) -> Hires:
    usual: dict[str, Any] = {"steps": 2, "strength": 0.5, "upscaler": "Lanczos"}
    return Hires(width=width, height=height, **{**usual, **changes})


def tiled(**changes: Any) -> dict[str, Any]:
    """What asks for tiles: four of them, unless it is changed."""
    tiles = Tiles(scale=1.75, overlap=16, upscaler="Lanczos")
    return {"source": scene(), "tiles": tiles, "strength": 0.5, **changes}


def after(steps: int, cut: Cut) -> AskCut:
    """Somebody wants a cut once so many steps have been taken: a skip for one picture, an interrupt for all."""
    asked = 0

    def ask_cut() -> Cut | None:
        nonlocal asked
        asked += 1
        return cut if asked == steps or (asked > steps and cut is Cut.INTERRUPT) else None

    return ask_cut


@dataclass
class Blank:
    """Paints each source as it is, and without one a grey picture; notes what it was asked for, and being closed."""

    asked: list[GenerateRequest] = field(default_factory=list)
    closed: int = 0
    bits: int | None = None
    tint: Callable[[Image.Image], Image.Image] = lambda image: image

    def paint(self, request: GenerateRequest, ask_cut: AskCut = never) -> Generator[Event, None, Cut | None]:
        self.asked.append(request)
        cut = None
        try:
            for seed in request.seeds:
                cut = yield from self._paint_one(request, seed, ask_cut)
                if cut is Cut.INTERRUPT:
                    break
        finally:
            self.closed += 1
        return cut

    def _paint_one(self, request: GenerateRequest, seed: int, ask_cut: AskCut) -> Generator[Event, None, Cut | None]:
        size = (request.width, request.height)
        begun = request.source.resize(size) if request.source else Image.new("RGB", size, "grey")
        steps = repaint_steps(request.steps, request.strength) if request.source else request.steps
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


def blank(painter: Blank, ask_cut: AskCut = never, **changes: Any) -> list[Event]:
    with closing(paint(painter, request(**changes), ask_cut)) as painting:
        return list(painting)
