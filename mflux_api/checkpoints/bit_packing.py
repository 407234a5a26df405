"""Group sizes for quantization, and GGUF blocks that are used without conversion."""

from collections import Counter
from collections.abc import Sequence

from mflux_api.checkpoints.safetensors import Shard

GROUP_SIZES = (64, 32)
# GGUF types that MLX uses without conversion: bits per value, 32 values in a block.
PACKED_BITS = {"Q8_0": 8, "Q4_0": 4, "Q4_1": 4}
PACKED_GROUP = 32


def choose_group_size(shape: Sequence[int]) -> int | None:
    """Return how many values share a scale when a weight of this shape is quantized; None if it is not quantized."""
    return next((size for size in GROUP_SIZES if shape[-1] % size == 0), None) if len(shape) == 2 else None


def find_packed_bits(shards: Sequence[Shard]) -> int | None:
    """Return the most common bits per value among GGUF weights that are used without conversion; None without any."""
    counts: Counter[int] = Counter()
    for shard in shards:
        for tensor in shard.tensors.values():
            if tensor.dtype in PACKED_BITS and len(tensor.shape) == 2:
                counts[PACKED_BITS[tensor.dtype]] += tensor.count
    return counts.most_common(1)[0][0] if counts else None
