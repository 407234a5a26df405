"""A large transformer evaluated block by block.

macOS ends a command buffer that keeps the GPU busy for seconds. A step of 32 billion weights as one graph, the more so
compiled, is such a one; one of its 56 blocks takes some tenths of a second. For the same reason nothing is compiled.
"""

from typing import Any

import mlx.core as mx
from mflux.models.flux2.model.flux2_transformer.single_transformer_block import Flux2SingleTransformerBlock
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from mflux.models.flux2.model.flux2_transformer.transformer_block import Flux2TransformerBlock


class EvaluatedBlock(Flux2TransformerBlock):  # type: ignore[misc]
    """mflux's block, computed before it returns."""

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        outputs = super().__call__(*inputs, **named)
        mx.eval(outputs)
        return outputs


class EvaluatedSingleBlock(Flux2SingleTransformerBlock):  # type: ignore[misc]
    """mflux's single-stream block, computed before it returns."""

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        outputs = super().__call__(*inputs, **named)
        mx.eval(outputs)
        return outputs


def evaluate_by_block(transformer: Flux2Transformer) -> None:
    """Make every block evaluate what it returns, in place."""
    for block in transformer.transformer_blocks:
        block.__class__ = EvaluatedBlock
    for block in transformer.single_transformer_blocks:
        block.__class__ = EvaluatedSingleBlock
