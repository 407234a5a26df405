"""Sizes that no model paints: paint a little larger and crop."""

import pytest

from mflux_api.wire.picture_size import PictureSize, exact_size


def test_a_size_that_can_be_painted_is_painted_as_it_is() -> None:
    assert exact_size(512, 64, smallest=1) == PictureSize(width=512, height=64, crop=None)


@pytest.mark.parametrize(
    ("asked", "painted"), [((500, 64), (512, 64)), ((65, 79), (80, 80)), ((1, 1000), (64, 1008)), ((32, 32), (64, 64))]
)
def test_any_other_is_cut_from_the_next_size_that_can_be(asked: tuple[int, int], painted: tuple[int, int]) -> None:
    assert exact_size(*asked, smallest=1) == PictureSize(width=painted[0], height=painted[1], crop=asked)


@pytest.mark.parametrize("asked", [(None, None), (500, None), (None, 500), (500, 63)])
def test_what_is_left_out_or_too_small_is_for_the_order_to_fill_or_refuse(asked: tuple[int | None, int | None]) -> None:
    assert exact_size(*asked, smallest=64) == PictureSize(width=asked[0], height=asked[1], crop=None)
