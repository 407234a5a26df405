"""Paint a request in one or several passes: prompt upsampling, hires (enlarge and repaint), tiles."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
from PIL import Image

from mflux_api.checkpoints.families import no_words_error
from mflux_api.engine.image_fit import fit_request
from mflux_api.engine.loaded_pipeline import LoadedPipeline, PaintingEvents, PromptWriter
from mflux_api.ipc.messages import PaintingEvent, Picture, Preview, Step, TakeEarlyStop, never_stop_early
from mflux_api.pixels import fitting, tiling
from mflux_api.pixels.enlarging import LATENT_UPSCALERS, enlarge_to_cover
from mflux_api.request import (
    EarlyStop,
    GenerateRequest,
    Hires,
    InpaintOptions,
    Tiles,
    count_repaint_steps,
    round_up_size,
)


def paint(
    pipeline: LoadedPipeline, request: GenerateRequest, take_early_stop: TakeEarlyStop = never_stop_early
) -> PaintingEvents:
    """Like `LoadedPipeline.paint`, with all options of `PaintOptions`.

    If an early stop ends the first pass, its picture is the result. Raises ModelUnsupported if the prompt is to be
    upsampled and the model cannot do it.
    """
    if not request.upsample:
        return (yield from _paint_passes(pipeline, request, take_early_stop))
    if not isinstance(pipeline, PromptWriter):
        raise no_words_error()
    edit = request.source is not None or bool(request.references)
    prompt = yield from pipeline.upsample_prompt(request.prompt, edit=edit)
    with closing(_paint_passes(pipeline, replace(request, prompt=prompt, upsample=False), take_early_stop)) as painting:
        while True:
            try:
                event = next(painting)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            yield replace(event, prompt=prompt) if isinstance(event, Picture) else event


def _paint_passes(pipeline: LoadedPipeline, request: GenerateRequest, take_early_stop: TakeEarlyStop) -> PaintingEvents:
    if request.is_one_pass and not request.further_sources:
        return (yield from _paint_one_pass(pipeline, request, take_early_stop))
    for single in _split_by_picture(request):
        if single.hires is not None:
            early_stop = yield from _paint_hires(pipeline, single, single.hires, take_early_stop)
        elif single.tiles is not None:
            early_stop = yield from _paint_tiled(pipeline, single, single.tiles, take_early_stop)
        else:
            early_stop = yield from _paint_one_pass(pipeline, single, take_early_stop)
        if early_stop is EarlyStop.INTERRUPT:
            return early_stop
    return None


def _paint_one_pass(
    pipeline: LoadedPipeline, request: GenerateRequest, take_early_stop: TakeEarlyStop
) -> PaintingEvents:
    frame = fit_request(request)
    painting = pipeline.paint(frame.request, take_early_stop)
    with closing(painting):
        while True:
            try:
                event = next(painting)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            yield replace(event, image=frame.finish_picture(event)) if isinstance(event, Picture) else event


def _paint_hires(
    pipeline: LoadedPipeline, request: GenerateRequest, hires: Hires, take_early_stop: TakeEarlyStop
) -> PaintingEvents:
    """Paint a small picture for the composition, enlarge it, and repaint it for the detail."""
    first = replace(request, hires=None)
    begun = request.steps if request.source is None else count_repaint_steps(request.steps, request.strength)
    total = begun + count_repaint_steps(hires.steps, hires.strength)
    small, early_stop = yield from _renumber_steps(_paint_one_pass(pipeline, first, take_early_stop), 0, total)
    if early_stop is not None:
        yield small
        return early_stop
    second = _make_second_request(first, small.image, hires)
    large, early_stop = yield from _renumber_steps(_paint_one_pass(pipeline, second, take_early_stop), begun, total)
    yield replace(large, timings=_sum_timings(small.timings, large.timings), steps=small.steps)
    return early_stop


def _make_second_request(first: GenerateRequest, small: Image.Image, hires: Hires) -> GenerateRequest:
    size, method = (hires.width, hires.height), LATENT_UPSCALERS.get(hires.upscaler)
    canvas = round_up_size(*size)
    source = enlarge_to_cover(small, size, hires.upscaler) if method is None else _crop_to_aspect(small, size)
    return replace(
        first,
        prompt=hires.prompt if hires.prompt is not None else first.prompt,
        negative_prompt=hires.negative_prompt if hires.negative_prompt is not None else first.negative_prompt,
        # The second pass uses the last prompt of the schedule for all of its steps.
        schedule=(),
        width=canvas[0],
        height=canvas[1],
        steps=hires.steps,
        source=source,
        strength=hires.strength,
        crop=size,
        latents=None,
        retouch=InpaintOptions(resize="stretch" if method is None else "latent"),
        stretch=method,
    )


def _crop_to_aspect(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Crop the largest centred part with the aspect ratio of `size`."""
    scale = min(image.width / size[0], image.height / size[1])
    return fitting.crop_centre(image, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))


def _paint_tiled(
    pipeline: LoadedPipeline, request: GenerateRequest, tiles: Tiles, take_early_stop: TakeEarlyStop
) -> PaintingEvents:
    """Enlarge the source and repaint it tile by tile. After an early stop, the remaining tiles are only enlarged."""
    assert request.source is not None
    size = tuple(max(1, int(side * tiles.scale)) for side in request.source.size)
    tile = request.requested_size
    large = enlarge_to_cover(request.source.convert("RGB"), (size[0], size[1]), tiles.upscaler)
    canvas = fitting.padded(large, (max(size[0], tile[0]), max(size[1], tile[1])))
    # A larger overlap would leave hardly any of a tile but its edges, and would need very many tiles.
    overlap = min(tiles.overlap, min(tile) // 2)
    boxes = tiling.place_tiles(canvas.size, tile, overlap)
    parts = [canvas.crop(place) for place in boxes]
    painted, early_stop = yield from _paint_each_tile(
        pipeline, replace(request, tiles=None, mask=None), parts, take_early_stop
    )
    whole = tiling.join_tiles(
        [*(picture.image for picture in painted), *parts[len(painted) :]], boxes, canvas.size, overlap
    )
    image = fitting.crop_centre(whole, (size[0], size[1]))
    timings = _sum_timings(*(picture.timings for picture in painted))
    yield replace(painted[0], image=image, array=np.asarray(image, np.float32) / np.float32(255), timings=timings)
    return early_stop


def _paint_each_tile(
    pipeline: LoadedPipeline, request: GenerateRequest, parts: Sequence[Image.Image], take_early_stop: TakeEarlyStop
) -> Generator[PaintingEvent, None, tuple[list[Picture], EarlyStop | None]]:
    painted: list[Picture] = []
    count = count_repaint_steps(request.steps, request.strength)
    for part in parts:
        one = _paint_one_pass(pipeline, replace(request, source=part), take_early_stop)
        picture, early_stop = yield from _renumber_steps(one, count * len(painted), count * len(parts))
        painted.append(picture)
        if early_stop is not None:
            return painted, early_stop
    return painted, None


def _renumber_steps(
    painting: PaintingEvents, done: int, total: int
) -> Generator[PaintingEvent, None, tuple[Picture, EarlyStop | None]]:
    """Yield the steps and previews of one pass, renumbered as a part of `total` steps of which `done` came before.

    Does not yield the picture, but returns it with the early stop.
    """
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


def _split_by_picture(request: GenerateRequest) -> Iterator[GenerateRequest]:
    """Yield one request for each picture."""
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


def _sum_timings(*timings: dict[str, float]) -> dict[str, float]:
    return {name: sum(each.get(name, 0.0) for each in timings) for name in timings[0]}
