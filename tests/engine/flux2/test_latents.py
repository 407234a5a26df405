import mlx.core as mx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.engine.flux2 import latents

sides = st.integers(1, 9)


@given(sides, sides)
def test_patches_and_tokens_go_back_to_the_same_latents(rows: int, columns: int) -> None:
    plain = mx.random.normal((1, 8, rows * 2, columns * 2))
    patches = latents.patchify(plain)
    assert patches.shape == (1, 32, rows, columns)
    back = latents.unpatchify(latents.unpack(latents.pack(patches), rows, columns))
    np.testing.assert_array_equal(np.array(back), np.array(plain))


def test_positions_count_rows_and_columns_at_their_time() -> None:
    assert latents.make_grid_positions(2, 2, time=10).tolist() == [
        [10, 0, 0, 0],
        [10, 0, 1, 0],
        [10, 1, 0, 0],
        [10, 1, 1, 0],
    ]


def test_words_are_counted_on_the_last_axis() -> None:
    assert latents.make_text_positions(2).tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]


def test_a_seed_is_always_the_same_noise() -> None:
    first, second, other = (latents.make_noise(seed, 128, 4, 4) for seed in (2**64 - 1, 2**64 - 1, 0))
    np.testing.assert_array_equal(np.array(first), np.array(second))
    assert not np.array_equal(np.array(first), np.array(other))
