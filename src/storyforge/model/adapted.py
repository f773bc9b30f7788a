"""Products with frozen weights and the adapters on them, on a CPU, without autograd."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from storyforge.model import kernels

BF16 = torch.bfloat16
LANES = 16  # of kernels.c: ranks are padded to whole vectors


class Adapter:
    """LoRA's two factors as the kernels want them: float32, the rank padded with zeros."""

    def __init__(self, layer, columns: slice):
        self.a, self.b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        self.scale, self.columns = float(layer.scaling["default"]), columns  # of the layers' joint output
        self.rank = len(self.a)
        self.padded = -(-self.rank // LANES) * LANES

    def refresh(self) -> None:
        """Take over what the optimiser made of the factors."""
        padding = (0, self.padded - self.rank)
        self.up = torch.nn.functional.pad(self.b.detach(), padding)  # (out, padded)
        self.down = torch.nn.functional.pad(self.a.detach().T, padding).contiguous()  # (in, padded)
        self.down_t, self.up_t = self.down.T.contiguous(), self.up.T.contiguous()

    def project(self, x: Tensor, factor: Tensor) -> Tensor:
        """scale · x · factor, (rows, padded)."""
        low = torch.empty(len(x), self.padded)
        kernels.call("project", x, x.stride(0), factor, low, *x.shape, self.padded, self.scale)
        return low

    def expand(self, low: Tensor, factor: Tensor, y: Tensor) -> None:
        """y += low · factor."""
        kernels.call("expand", low, factor, y, y.stride(0), *y.shape, self.padded)

    def accumulate(self, x: Tensor, low: Tensor, dy: Tensor, dlow: Tensor) -> None:
        """Add to the factors' `.grad`."""
        for weight, part, rows, transpose in ((self.a, dlow, x, 0), (self.b, low, dy, 1)):
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            shape = (*rows.shape, self.padded, self.rank)
            kernels.call("outer", part, rows, rows.stride(0), weight.grad, *shape, transpose)


class Adapted:
    """Linear layers that share an input, side by side: y = xWᵀ + s(xAᵀ)Bᵀ, W frozen."""

    def __init__(self, layers: Sequence):
        self.layers, self.adapters, start = layers, [], 0
        for layer in layers:
            columns = slice(start, start + layer.weight.shape[0])
            start = columns.stop
            if hasattr(layer, "lora_A"):
                self.adapters.append(Adapter(layer, columns))

    @cached_property
    def weight(self) -> Tensor:
        return packed(torch.cat([_frozen(layer) for layer in self.layers]))

    @cached_property
    def transposed(self) -> Tensor:
        return packed(torch.cat([_frozen(layer) for layer in self.layers]).T.contiguous())

    @property
    def active(self) -> bool:
        return bool(self.adapters) and not self.layers[0].disable_adapters

    def __call__(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """y, and each adapter's sxAᵀ, which the backward pass needs."""
        y, lows = product(x, self.weight), []
        for adapter in self.adapters if self.active else ():
            lows.append(adapter.project(x, adapter.down))
            adapter.expand(lows[-1], adapter.up_t, y[:, adapter.columns])
        return y, lows

    def input_gradient(self, dy: Tensor) -> tuple[Tensor, list[Tensor]]:
        """dx, and each adapter's sdyB, which its gradient needs."""
        dx, lows = product(dy, self.transposed), []
        for adapter in self.adapters:
            lows.append(adapter.project(dy[:, adapter.columns], adapter.up))
            adapter.expand(lows[-1], adapter.down_t, dx)
        return dx, lows

    def accumulate(self, x: Tensor, lows: Sequence[Tensor], dy: Tensor, dlows: Sequence[Tensor]) -> None:
        """Add the adapters' gradients to their `.grad`."""
        for adapter, low, dlow in zip(self.adapters, lows, dlows, strict=True):
            adapter.accumulate(x, low, dy[:, adapter.columns], dlow)


def packed(weight: Tensor) -> Tensor:
    """As oneDNN wants it for a thousand rows, which it would else arrange anew for every product."""
    return torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1024)


def product(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def _frozen(layer) -> Tensor:
    return getattr(layer, "base_layer", layer).weight
