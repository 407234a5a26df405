"""Convolutions over time for a film of one picture: flat ones, a third of the work and of the weights."""

import mlx.core as mx
from mflux.models.seedvr2.model.seedvr2_vae.common.conv3d import CausalConv3d
from mlx import nn
from mlx.utils import tree_map


class FrameConv(nn.Module):
    """A causal convolution of one frame: the frame itself stands for those before it, so the weights of all times add
    up to one flat kernel. Maps (B, C, 1, H, W) as CausalConv3d does.
    """

    def __init__(self, conv: CausalConv3d) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weight = conv.weight.astype(mx.float32).sum(axis=1).astype(conv.weight.dtype)
        self.bias = conv.bias
        self.stride = conv.stride[1:]
        self.padding = conv.padding[1:]

    def __call__(self, x: mx.array) -> mx.array:
        flat: mx.array = mx.conv2d(x[:, :, 0].transpose(0, 2, 3, 1), self.weight, self.stride, self.padding) + self.bias
        return flat.transpose(0, 3, 1, 2)[:, :, None]


def flatten(module: nn.Module) -> None:
    """Every convolution over time into a flat one, in place."""

    def flat(layer: nn.Module) -> nn.Module:
        return FrameConv(layer) if isinstance(layer, CausalConv3d) else layer

    module.update_modules(tree_map(flat, module.leaf_modules(), is_leaf=nn.Module.is_module))
