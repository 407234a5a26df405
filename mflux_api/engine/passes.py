"""A request in one pass of the model or in several: enlarged and repainted, or repainted in tiles."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
from PIL import Image

from mflux_api.checkpoints.families import no_words
from mflux_api.engine.image_fit import framed
from mflux_api.engine.loaded_pipeline import LoadedPipeline, Painting, PromptWriter
from mflux_api.ipc.messages import AskCut, Event, Picture, Preview, Step, never
from mflux_api.pixels import fitting, tiling
from mflux_api.pixels.enlarging import LATENT, enlarged
from mflux_api.request import Cut, GenerateRequest, Hires, Retouch, Tiles, repaint_steps, stepped


def paint(pipeline: LoadedPipeline, request: GenerateRequest, ask_cut: AskCut = never) -> Painting:
    """As `LoadedPipeline.paint`, with everything that `Craft` may ask for.

    A painting that is cut short in its first pass is given back as it is then. Raises ModelUnsupported for a prompt to
    be upsampled where the model cannot.
    """
    if not request.upsample:
        return (yield from _painted(pipeline, request, ask_cut))
    if not isinstance(pipeline, PromptWriter):
        raise no_words()
    edit = request.source is not None or bool(request.references)
    prompt = yield from pipeline.rewrite(request.prompt, edit=edit)
    with closing(_painted(pipeline, replace(request, prompt=prompt, upsample=False), ask_cut)) as painting:
        while True:
            try:
                event = next(painting)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            yield replace(event, prompt=prompt) if isinstance(event, Picture) else event


def _painted(pipeline: LoadedPipeline, request: GenerateRequest, ask_cut: AskCut) -> Painting:
    if request.is_one_pass and not request.further_sources:
        return (yield from _one_pass(pipeline, request, ask_cut))
    for single in _singles(request):
        if single.hires is not None:
            cut = yield from _repainted(pipeline, single, single.hires, ask_cut)
        elif single.tiles is not None:
            cut = yield from _tiled(pipeline, single, single.tiles, ask_cut)
        else:
            cut = yield from _one_pass(pipeline, single, ask_cut)
        if cut is Cut.INTERRUPT:
            return cut
    return None


def _one_pass(pipeline: LoadedPipeline, request: GenerateRequest, ask_cut: AskCut) -> Painting:
    frame = framed(request)
    painting = pipeline.paint(frame.request, ask_cut)
    with closing(painting):
        while True:
            try:
                event = next(painting)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            yield replace(event, image=frame.finish(event)) if isinstance(event, Picture) else event


def _repainted(pipeline: LoadedPipeline, request: GenerateRequest, hires: Hires, ask_cut: AskCut) -> Painting:
    """Paint, enlarge, paint again over it: the composition of a small picture, the detail of a large one."""
    first = replace(request, hires=None)
    begun = request.steps if request.source is None else repaint_steps(request.steps, request.strength)
    total = begun + repaint_steps(hires.steps, hires.strength)
    small, cut = yield from _numbered(_one_pass(pipeline, first, ask_cut), 0, total)
    if cut is not None:
        yield small
        return cut
    second = _second_pass(first, small.image, hires)
    large, cut = yield from _numbered(_one_pass(pipeline, second, ask_cut), begun, total)
    yield replace(large, timings=_sum(small.timings, large.timings), steps=small.steps)
    return cut


def _second_pass(first: GenerateRequest, small: Image.Image, hires: Hires) -> GenerateRequest:
    size, method = (hires.width, hires.height), LATENT.get(hires.upscaler)
    canvas = stepped(*size)
    source = enlarged(small, size, hires.upscaler) if method is None else _shaped(small, size)
    return replace(
        first,
        prompt=hires.prompt if hires.prompt is not None else first.prompt,
        negative_prompt=hires.negative_prompt if hires.negative_prompt is not None else first.negative_prompt,
        # What the first pass came to in the end.
        schedule=(),
        width=canvas[0],
        height=canvas[1],
        steps=hires.steps,
        source=source,
        strength=hires.strength,
        crop=size,
        latents=None,
        retouch=Retouch(resize="stretch" if method is None else "latent"),
        stretch=method,
    )


def _shaped(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest middle part that has the shape of `size`."""
    scale = min(image.width / size[0], image.height / size[1])
    return fitting.centre(image, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))


def _tiled(pipeline: LoadedPipeline, request: GenerateRequest, tiles: Tiles, ask_cut: AskCut) -> Painting:
    """The source enlarged, each tile of it repainted. What a cut leaves over stays as it was enlarged."""
    assert request.source is not None
    size = tuple(max(1, int(side * tiles.scale)) for side in request.source.size)
    tile = request.asked_size
    large = enlarged(request.source.convert("RGB"), (size[0], size[1]), tiles.upscaler)
    canvas = fitting.padded(large, (max(size[0], tile[0]), max(size[1], tile[1])))
    # With more of it a tile would be hardly more than its edges, and there would be no end of tiles.
    overlap = min(tiles.overlap, min(tile) // 2)
    places = tiling.boxes(canvas.size, tile, overlap)
    parts = [canvas.crop(place) for place in places]
    painted, cut = yield from _each_tile(pipeline, replace(request, tiles=None, mask=None), parts, ask_cut)
    whole = tiling.joined(
        [*(picture.image for picture in painted), *parts[len(painted) :]], places, canvas.size, overlap
    )
    image = fitting.centre(whole, (size[0], size[1]))
    timings = _sum(*(picture.timings for picture in painted))
    yield replace(painted[0], image=image, array=np.asarray(image, np.float32) / np.float32(255), timings=timings)
    return cut


def _each_tile(
    pipeline: LoadedPipeline, request: GenerateRequest, parts: Sequence[Image.Image], ask_cut: AskCut
) -> Generator[Event, None, tuple[list[Picture], Cut | None]]:
    painted: list[Picture] = []
    count = repaint_steps(request.steps, request.strength)
    for part in parts:
        one = _one_pass(pipeline, replace(request, source=part), ask_cut)
        picture, cut = yield from _numbered(one, count * len(painted), count * len(parts))
        painted.append(picture)
        if cut is not None:
            return painted, cut
    return painted, None


def _numbered(painting: Painting, done: int, total: int) -> Generator[Event, None, tuple[Picture, Cut | None]]:
    """The events of one picture, their steps counted as those of a longer work; its picture is kept back."""
    picture = None
    with closing(painting):
        while True:
            try:
                event = next(painting)
            except StopIteration as end:
                assert picture is not None
                return picture, end.value
            match event:
                case Step():
                    yield replace(event, number=event.number + done, steps=total)
                case Preview():
                    yield replace(event, number=event.number + done)
                case Picture():
                    picture = event


def _singles(request: GenerateRequest) -> Iterator[GenerateRequest]:
    """The request picture by picture."""
    sources = () if request.source is None else (request.source, *request.further_sources)
    for index, seed in enumerate(request.seeds):
        varied = request.variation
        yield replace(
            request,
            seeds=(seed,),
            source=sources[index % len(sources)] if sources else None,
            further_sources=(),
            variation=None if varied is None else replace(varied, seed=varied.seed + index),
            latents=None if request.latents is None else request.latents[index : index + 1],
        )


def _sum(*timings: dict[str, float]) -> dict[str, float]:
    return {name: sum(each.get(name, 0.0) for each in timings) for name in timings[0]}
