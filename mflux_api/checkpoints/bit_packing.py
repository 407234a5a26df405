"""Which rows can be packed into few bits, in groups of how many."""

from collections import Counter
from collections.abc import Sequence

from mflux_api.checkpoints.safetensors import Shard

GROUP_SIZES = (64, 32)
# Blocks of GGUF that MLX computes with as they are: bits of a value, 32 of them in a block.
PACKED_BITS = {"Q8_0": 8, "Q4_0": 4, "Q4_1": 4}
PACKED_GROUP = 32


def choose_group_size(shape: Sequence[int]) -> int | None:
    """Values that share a scale when a weight of this shape is quantized; None: it is left as it is."""
    return next((size for size in GROUP_SIZES if shape[-1] % size == 0), None) if len(shape) == 2 else None


def find_packed_bits(shards: Sequence[Shard]) -> int | None:
    """The bits that most values of GGUF files have which are used as they are stored; None where none are."""
    counts: Counter[int] = Counter()
    for shard in shards:
        for tensor in shard.tensors.values():
            if tensor.dtype in PACKED_BITS and len(tensor.shape) == 2:
                counts[PACKED_BITS[tensor.dtype]] += tensor.count
    return counts.most_common(1)[0][0] if counts else None
