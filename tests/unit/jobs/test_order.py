from dataclasses import replace

import pytest

from mflux_api.errors import InvalidRequest
from mflux_api.jobs.order import Defaults, Limits, Order, check, complete
from mflux_api.models.registry import ModelSpec, load_registry
from mflux_api.request import GenerateRequest, Hires, LoraUse, Tiles, Upload

LONGEST = "the enlarged picture's longest side"
LIMITS = Limits(side=512, steps=20, pictures=3, prompt=10, references=2)
ORDER = Order(prompt="a fox")
DISTILLED = ModelSpec(name="distilled", distilled=True)
BASE = ModelSpec(name="base", distilled=False, steps=50, guidance=4.0)
PICTURE = Upload(b"", 64, 64)
HIRES = Hires(width=0, height=0, scale=2.0, steps=0, strength=0.5, upscaler="Lanczos")
TILES = Tiles(scale=2.0, overlap=64, upscaler="Lanczos")


def complete_order(order: Order, spec: ModelSpec = DISTILLED, defaults: Defaults | None = None) -> GenerateRequest:
    return complete(order, spec, defaults or Defaults(), ())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prompt": "x" * 11}, "prompt"),
        ({"negative_prompt": "x" * 11}, "negative_prompt"),
        ({"width": 513}, "width"),
        ({"height": 528}, "height"),
        ({"steps": 21}, "steps"),
        ({"references": (PICTURE,) * 3}, "references"),
        ({"count": 4}, "num_images"),
        ({"count": 0}, "num_images"),
        ({"count": -1}, "num_images"),
        ({"batches": 4}, "n_iter"),
        ({"batches": 0}, "n_iter"),
        ({"batches": -1}, "n_iter"),
        ({"tiles": TILES, "source": Upload(b"", 513, 64)}, LONGEST),
        ({"tiles": TILES, "source": Upload(b"", 64, 513)}, LONGEST),
        ({"tiles": replace(TILES, scale=4.0), "source": Upload(b"", 64, 257)}, LONGEST),
        ({"priority": 11}, "priority"),
        ({"priority": -11}, "priority"),
    ],
)
def test_an_order_beyond_a_limit_is_refused_with_its_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(replace(ORDER, **changes), LIMITS)  # type: ignore[arg-type]
    assert caught.value.details["field"] == field
    assert caught.value.message.startswith(field)


def test_an_order_at_every_limit_is_taken() -> None:
    order = Order(
        prompt="x" * 10,
        negative_prompt="x" * 10,
        width=512,
        height=512,
        steps=20,
        references=(PICTURE,) * 2,
        count=3,
        batches=3,
        tiles=TILES,
        source=Upload(b"", 512, 512),
        priority=10,
    )
    check(order, LIMITS)
    check(replace(order, priority=-10), LIMITS)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"width": 100}, "width"),
        ({"height": 48}, "height"),
        ({"width": 0}, "width"),
        ({"height": -64}, "height"),
        ({"steps": 0}, "steps"),
        ({"guidance": -1.0}, "guidance"),
        ({"guidance": float("nan")}, "guidance"),
        ({"guidance": float("inf")}, "guidance"),
        ({"strength": 1.5}, "strength"),
        ({"strength": float("nan")}, "strength"),
        ({"seed": 2**64}, "seed"),
        ({"mask": PICTURE}, "mask"),
    ],
)
def test_what_no_model_can_do_is_refused_with_its_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        complete_order(replace(ORDER, **changes))  # type: ignore[arg-type]
    assert caught.value.details["field"] == field


# Defaults


def test_gaps_are_filled_by_the_server() -> None:
    request = complete_order(ORDER, defaults=Defaults(steps=6, width=256, height=128))
    assert (request.width, request.height, request.steps, request.guidance) == (256, 128, 6, 1.0)
    assert (request.prompt, request.negative_prompt, request.strength) == ("a fox", "", 0.75)
    assert len(request.seeds) == 1


def test_base_models_keep_their_own_steps_and_guidance() -> None:
    request = complete_order(ORDER, BASE, Defaults(steps=6))
    assert (request.steps, request.guidance) == (50, 4.0)


def test_base_models_keep_to_the_limit_of_steps() -> None:
    assert complete_order(ORDER, BASE, Defaults(limits=LIMITS)).steps == 20


def test_a_model_that_does_not_say_takes_the_steps_of_the_server() -> None:
    assert complete_order(ORDER, ModelSpec(name="a folder"), Defaults(steps=7)).steps == 7


@pytest.mark.parametrize("spec", [DISTILLED, BASE])
def test_what_is_asked_comes_before_every_default(spec: ModelSpec) -> None:
    asked = replace(ORDER, width=128, height=192, steps=3, guidance=0.0, strength=0.0, seed=0)
    request = complete_order(asked, spec, Defaults(steps=6))
    assert (request.width, request.height, request.steps) == (128, 192, 3)
    assert (request.guidance, request.strength, request.seeds) == (0.0, 0.0, (0,))


def test_the_default_size_is_no_larger_than_the_model() -> None:
    request = complete_order(ORDER, load_registry()["flux2-tiny"], Defaults(width=2048, height=64))
    assert (request.width, request.height) == (load_registry()["flux2-tiny"].capabilities.native_side, 64)


def test_adapters_are_handed_on() -> None:
    use = LoraUse(path="/loras/fox.safetensors", scale=0.5)
    assert complete(ORDER, DISTILLED, Defaults(), (use,)).loras == (use,)


# Sizes


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (640, 480)),
        ((650, 490), (640, 480)),
        ((1024, 1024), (1024, 1024)),
        ((2048, 2048), (1024, 1024)),
        ((4096, 1024), (2048, 512)),
        ((8192, 1024), (2048, 256)),
        ((10_000, 20), (2048, 64)),
        ((20, 10_000), (64, 2048)),
        ((1, 1), (64, 64)),
    ],
)
def test_a_picture_that_is_worked_on_gives_the_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    picture = Upload(b"", *size)
    for order in (replace(ORDER, source=picture), replace(ORDER, references=(picture, PICTURE))):
        request = complete_order(order)
        assert (request.width, request.height) == expected


def test_a_source_comes_before_references_and_one_side_may_be_asked_for() -> None:
    order = replace(ORDER, source=Upload(b"", 256, 128), references=(Upload(b"", 512, 512),), height=192)
    request = complete_order(order)
    assert (request.width, request.height) == (256, 192)


def test_the_size_of_a_picture_keeps_to_the_limit() -> None:
    request = complete_order(replace(ORDER, source=Upload(b"", 1024, 512)), defaults=Defaults(limits=LIMITS))
    assert (request.width, request.height) == (512, 256)


# Seeds


def test_each_picture_has_the_next_seed() -> None:
    assert complete_order(replace(ORDER, seed=7, count=3)).seeds == (7, 8, 9)


def test_seeds_begin_again_after_the_largest() -> None:
    assert complete_order(replace(ORDER, seed=2**64 - 2, count=4)).seeds == (2**64 - 2, 2**64 - 1, 0, 1)


@pytest.mark.parametrize(("count", "batches"), [(1, 1), (3, 1), (1, 3), (3, 2)])
def test_every_picture_of_every_batch_has_the_next_seed(count: int, batches: int) -> None:
    request = complete_order(replace(ORDER, seed=7, count=count, batches=batches))
    assert request.seeds == tuple(range(7, 7 + count * batches))


@pytest.mark.parametrize("seed", [None, -1, -5])
def test_no_seed_is_a_random_one(seed: int | None) -> None:
    order = replace(ORDER, seed=seed, count=2)
    first, second = complete_order(order), complete_order(order)
    assert first.seeds != second.seeds
    assert first.seeds[1] == first.seeds[0] + 1
    assert 0 <= first.seeds[0] < 2**32


def test_uploads_are_everything_that_was_sent() -> None:
    source, mask, reference = (Upload(b"", side, side) for side in (64, 128, 192))
    assert replace(ORDER, source=source, mask=mask, references=(reference,)).uploads == (source, mask, reference)
    assert ORDER.uploads == ()


# A second pass


@pytest.mark.parametrize(
    ("hires", "size"),
    [
        (HIRES, (256, 192)),
        (replace(HIRES, scale=1.5), (192, 144)),
        (replace(HIRES, scale=1.1), (140, 105)),
        (replace(HIRES, scale=None), (128, 96)),
        (replace(HIRES, width=136, height=200), (136, 200)),
    ],
)
def test_a_second_pass_is_as_large_as_its_scale_or_its_own_size_says(hires: Hires, size: tuple[int, int]) -> None:
    found = complete_order(replace(ORDER, width=128, height=96, hires=hires)).hires
    assert found is not None
    assert (found.width, found.height) == size
    assert found == replace(hires, width=size[0], height=size[1], steps=4)


def test_its_scale_is_of_the_size_that_was_asked_for() -> None:
    found = complete_order(replace(ORDER, width=80, height=64, crop=(72, 64), hires=HIRES)).hires
    assert found is not None
    assert (found.width, found.height) == (144, 128)


@pytest.mark.parametrize(("steps", "expected"), [(0, 7), (5, 5)])
def test_it_takes_as_many_steps_as_the_first_pass_unless_it_has_its_own(steps: int, expected: int) -> None:
    found = complete_order(replace(ORDER, steps=7, hires=replace(HIRES, steps=steps))).hires
    assert found is not None
    assert found.steps == expected


@pytest.mark.parametrize(
    ("hires", "field"),
    [
        (replace(HIRES, scale=4.1), "hires width"),
        (replace(HIRES, width=513, height=64), "hires width"),
        (replace(HIRES, width=64, height=513), "hires height"),
        (replace(HIRES, steps=21), "hires steps"),
        (replace(HIRES, scale=0.001), "hr_resize_x"),
        (replace(HIRES, scale=0.9), "hr_resize_x"),
        (replace(HIRES, width=128, height=63), "hr_resize_x"),
    ],
)
def test_a_second_pass_beyond_a_limit_is_refused_with_its_field(hires: Hires, field: str) -> None:
    order = replace(ORDER, width=128, height=64, hires=hires)
    with pytest.raises(InvalidRequest) as caught:
        complete_order(order, defaults=Defaults(limits=LIMITS))
    assert caught.value.details["field"] == field
    assert caught.value.message.startswith("hires")


def test_a_second_pass_at_every_limit_is_taken() -> None:
    order = replace(ORDER, width=128, height=128, hires=replace(HIRES, scale=4.0, steps=20))
    found = complete_order(order, defaults=Defaults(limits=LIMITS)).hires
    assert found is not None
    assert (found.width, found.height, found.steps) == (512, 512, 20)


@pytest.mark.parametrize(
    ("asked", "painted"), [((500, 64), (512, 64)), ((65, 79), (80, 80)), ((1, 1000), (64, 1008)), ((32, 32), (64, 64))]
)
def test_an_exact_size_is_cut_from_the_next_one_that_can_be_painted(
    asked: tuple[int, int], painted: tuple[int, int]
) -> None:
    request = complete_order(replace(ORDER, width=asked[0], height=asked[1], exact=True))
    assert ((request.width, request.height), request.crop) == (painted, asked)
    assert request.requested_size == asked


def test_an_exact_size_that_can_be_painted_is_painted_as_it_is() -> None:
    request = complete_order(replace(ORDER, width=512, height=64, exact=True))
    assert (request.width, request.height, request.crop) == (512, 64, None)


def test_the_side_that_an_exact_size_leaves_out_is_filled_in() -> None:
    request = complete_order(replace(ORDER, width=70, exact=True), defaults=Defaults(width=128, height=96))
    assert (request.width, request.height, request.crop) == (80, 96, (70, 96))


@pytest.mark.parametrize("asked", [(0, 64), (64, -1)])
def test_an_exact_size_without_pixels_is_refused(asked: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest):
        complete_order(replace(ORDER, width=asked[0], height=asked[1], exact=True))
