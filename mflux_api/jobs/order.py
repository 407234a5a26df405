"""What a client asks for, independent of any dialect, and the limits for it."""

import random
from dataclasses import dataclass, field, replace

from mflux_api.errors import InvalidRequest, ModelUnsupported
from mflux_api.models.registry import ModelSpec
from mflux_api.request import (
    LARGEST_SEED,
    SIDE_STEP,
    SMALLEST_SIDE,
    GenerateRequest,
    Hires,
    LoraUse,
    PaintOptions,
    Upload,
    round_up_size,
)

LARGEST_AREA = 1024 * 1024
RANDOM_SEEDS = 2**32
PRIORITIES = range(-10, 11)


@dataclass(frozen=True, kw_only=True)
class Order(PaintOptions):
    """One request for pictures. None means the default of the model or the server.

    `seed`: random below 0. `count`: pictures per batch; `batches`: how many batches. `source`: the picture to repaint
    with `strength` (0 keeps it, 1 ignores it), only where `mask` is white. `references`: pictures that an edit uses.
    `loras`: (name, scale). `key`: the client's idempotency key, unique within `owner`; `digest`: tells different orders
    under one key apart. A `hires` without a size uses its scale; one without steps uses those of the first pass.
    `exact`: any size is painted, by painting the next larger one that a model can, and cropping it. Otherwise a size
    that no model can paint is refused.
    """

    prompt: str
    negative_prompt: str = ""
    model: str | None = None
    width: int | None = None
    height: int | None = None
    exact: bool = False
    steps: int | None = None
    guidance: float | None = None
    seed: int | None = None
    count: int = 1
    batches: int = 1
    strength: float = 0.75
    source: Upload | None = None
    further_sources: tuple[Upload, ...] = ()
    mask: Upload | None = None
    references: tuple[Upload, ...] = ()
    loras: tuple[tuple[str, float], ...] = ()
    low_ram: bool = False
    priority: int = 0
    owner: str = ""
    key: str | None = None
    digest: str | None = None

    @property
    def uploads(self) -> tuple[Upload, ...]:
        uploads = (self.source, *self.further_sources, self.mask, *self.references)
        return tuple(upload for upload in uploads if upload is not None)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The largest values a client may ask for. `side`: pixels. `prompt`: characters."""

    side: int = 2048
    steps: int = 150
    pictures: int = 4
    prompt: int = 10_000
    references: int = 8


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """The server's defaults, used where neither the order nor a base model sets a value. Sizes in pixels."""

    steps: int = 4
    width: int = 512
    height: int = 512
    limits: Limits = field(default_factory=Limits)


def check(order: Order, limits: Limits) -> None:
    """Raise InvalidRequest for an order that exceeds the limits."""
    for name in ("prompt", "negative_prompt"):
        _at_most(name, len(getattr(order, name)), limits.prompt, "characters")
    for name in ("width", "height"):
        _at_most(name, getattr(order, name), limits.side, "pixels")
    _at_most("steps", order.steps, limits.steps, "steps")
    if order.tiles is not None and order.source is not None:
        longest = int(max(order.source.width, order.source.height) * order.tiles.scale)
        _at_most("the enlarged picture's longest side", longest, 2 * limits.side, "pixels")
    _at_most("references", len(order.references), limits.references, "pictures")
    for name, number in (("num_images", order.count), ("n_iter", order.batches)):
        if not 1 <= number <= limits.pictures:
            raise InvalidRequest(f"{name} must be from 1 to {limits.pictures}, not {number}.", field=name)
    if order.priority not in PRIORITIES:
        raise InvalidRequest("priority must be from -10 to 10.", field="priority")


def _at_most(name: str, value: int | None, limit: int, unit: str) -> None:
    if value is not None and value > limit:
        raise InvalidRequest(f"{name} may be at most {limit} {unit}, not {value}.", field=name, limit=limit)


def complete(order: Order, spec: ModelSpec, defaults: Defaults, loras: tuple[LoraUse, ...]) -> GenerateRequest:
    """Fill in all defaults and return the request, without its pictures.

    Raises InvalidRequest for values that no model accepts, and ModelUnsupported for text to image on an upscaler.
    """
    if order.mask is not None and order.source is None:
        raise InvalidRequest("A mask needs the picture it belongs to: send init_images as well.", field="mask")
    can = spec.capabilities
    if not can.from_words and order.source is None:
        raise ModelUnsupported(
            f"{spec.name} enlarges pictures and cannot paint from words: send one in init_images.", model=spec.name
        )
    size = _size(order, spec, defaults)
    width, height = round_up_size(*size) if order.exact and min(size) > 0 else size
    usual = defaults.steps if can.few_steps else can.default_steps
    steps = order.steps if order.steps is not None else min(usual, defaults.limits.steps)
    if can.fixed_steps:
        steps = can.default_steps
    return GenerateRequest(
        prompt=order.prompt,
        negative_prompt=order.negative_prompt,
        width=width,
        height=height,
        steps=steps,
        guidance=float(order.guidance) if order.guidance is not None else can.default_guidance,
        seeds=_seeds(order),
        strength=float(order.strength),
        loras=loras,
        variation=order.variation,
        retouch=order.retouch,
        hires=_hires(order, order.crop or size, steps, defaults.limits),
        tiles=order.tiles,
        crop=size if size != (width, height) else order.crop,
        stretch=order.stretch,
        schedule=order.schedule,
        emphasis=order.emphasis,
        said=order.said,
        upsample=order.upsample,
        note=order.note,
    )


def _hires(order: Order, size: tuple[int, int], steps: int, limits: Limits) -> Hires | None:
    hires = order.hires
    if hires is None:
        return None
    scale = hires.scale or 1.0
    width, height = (max(1, int(side * scale)) for side in size)
    if hires.width:
        width, height = hires.width, hires.height
    if min(width, height) < SMALLEST_SIDE:
        raise InvalidRequest(f"hires: sides must have at least {SMALLEST_SIDE} pixels.", field="hr_resize_x")
    _at_most("hires width", width, limits.side, "pixels")
    _at_most("hires height", height, limits.side, "pixels")
    _at_most("hires steps", hires.steps, limits.steps, "steps")
    return replace(hires, width=width, height=height, steps=hires.steps or steps)


def _seeds(order: Order) -> tuple[int, ...]:
    if order.seed is not None and order.seed > LARGEST_SEED:
        raise InvalidRequest("seed may be at most 2^64-1.", field="seed")
    first = order.seed if order.seed is not None and order.seed >= 0 else random.randrange(RANDOM_SEEDS)
    return tuple((first + index) % (LARGEST_SEED + 1) for index in range(order.count * order.batches))


def _size(order: Order, spec: ModelSpec, defaults: Defaults) -> tuple[int, int]:
    """Width and height as ordered, else those of the source or first reference, else `usual_size`, in pixels."""
    basis = order.source or next(iter(order.references), None)
    usual = usual_size(spec, defaults) if basis is None else _fitted(basis.width, basis.height, defaults.limits.side)
    return (
        order.width if order.width is not None else usual[0],
        order.height if order.height is not None else usual[1],
    )


def usual_size(spec: ModelSpec, defaults: Defaults) -> tuple[int, int]:
    """Default width and height of text to image: the server's, at most the model's native side."""
    side = spec.capabilities.native_side
    return min(defaults.width, side), min(defaults.height, side)


def _fitted(width: int, height: int, limit: int) -> tuple[int, int]:
    """Scale a picture's size down to at most one megapixel and `limit` a side, in multiples of SIDE_STEP."""
    scale = min(1.0, (LARGEST_AREA / (width * height)) ** 0.5, limit / max(width, height))
    return _stepped(width * scale), _stepped(height * scale)


def _stepped(side: float) -> int:
    return max(SMALLEST_SIDE, int(side) // SIDE_STEP * SIDE_STEP)
