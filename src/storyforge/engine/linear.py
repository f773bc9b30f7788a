"""Products with frozen weights and the adapters on them, on a CPU, without autograd."""

from collections.abc import Sequence
from functools import cache, cached_property

import torch
from torch import Tensor

from storyforge.engine import kernels

BF16 = torch.bfloat16
LANES = 16  # widths are whole numbers of it in kernels.c, and ranks are padded to it


@cache
def bf16_units() -> tuple[str, ...]:
    """What this processor multiplies bfloat16 with; empty where it has to be emulated."""
    units = {
        "AVX512-BF16": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }
    return tuple(name for name, there in units.items() if there)


class Frozen:
    """A weight that stays, (out, in), laid out once as its products want it.

    Where the processor multiplies bfloat16, they are oneDNN's, which would otherwise arrange the weight anew
    for each of them. Elsewhere oneDNN has none worth the name: they are `product` of kernels.c.
    """

    def __init__(self, weight: Tensor):
        weight, self.columns = weight.detach(), len(weight)
        if bf16_units():  # as oneDNN wants it for a thousand rows
            self.laid = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1024)
            return
        # (panels, in / 2, columns of a panel, 2), filled up with 0
        lanes, sums = kernels.library().lanes(), kernels.library().sums()
        more = (0, weight.shape[1] % 2, 0, -self.columns % (lanes * sums))
        filled = torch.nn.functional.pad(weight, more)
        self.laid = filled.unflatten(1, (-1, 2)).unflatten(0, (-1, lanes)).transpose(1, 2).contiguous()

    def product(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x Wᵀ + bias: (rows, in), (out,) -> (rows, out)."""
        if bf16_units():
            return torch.ops.mkldnn._linear_pointwise(x, self.laid, bias, "none", [], "")
        y = x.new_empty(len(x), self.columns)
        kernels.call("product", x, self.laid, bias, y, *x.shape, self.columns)
        return y


class Adapter:
    """LoRA's two factors, of the name that PEFT gave them, on one of the layers that lie side by side."""

    def __init__(self, name: str, layer, columns: slice, first: int):
        self.a, self.b = layer.lora_A[name].weight, layer.lora_B[name].weight
        self.scale, self.columns = float(layer.scaling[name]), columns  # of the layers' joint output
        self.rank = len(self.a)
        self.ranks = slice(first, first + -(-self.rank // LANES) * LANES)  # of the adapters' joint rank

    def padded(self, factor: Tensor) -> Tensor:
        """(rank, …) → the rank as the kernels want it."""
        rows = self.ranks.stop - self.ranks.start
        return torch.nn.functional.pad(factor.detach(), (0, 0, 0, rows - self.rank)).to(BF16)


class Adapted:
    """Linear layers that share an input, side by side: y = xWᵀ + bias + s(xAᵀ)Bᵀ, W and bias frozen."""

    def __init__(self, layers: Sequence):
        self.layers, self.columns, start = layers, [], 0
        for layer in layers:
            self.columns.append(slice(start, start + layer.weight.shape[0]))
            start = self.columns[-1].stop
        self._named: dict[str, list[Adapter]] = {}

    @property
    def adapters(self) -> list[Adapter]:
        """Those that PEFT has made active, switched off or not; none on a base."""
        if not hasattr(self.layers[0], "lora_A"):
            return []
        (name,) = self.layers[0].active_adapters
        if name not in self._named or self._named[name][0].a is not self.layers[0].lora_A[name].weight:
            found, rank = [], 0
            for layer, columns in zip(self.layers, self.columns, strict=True):
                found.append(Adapter(name, layer, columns, rank))
                rank = found[-1].ranks.stop
            self._named[name] = found
        return self._named[name]

    @property
    def rank(self) -> int:
        """Of the adapters together."""
        return self.adapters[-1].ranks.stop if self.adapters else 0

    @cached_property
    def weight(self) -> Frozen:
        return Frozen(torch.cat([_frozen(layer).weight for layer in self.layers]))

    @cached_property
    def transposed(self) -> Frozen:
        return Frozen(torch.cat([_frozen(layer).weight for layer in self.layers]).T)

    @cached_property
    def bias(self) -> Tensor | None:
        found = [_frozen(layer).bias for layer in self.layers]
        return None if found[0] is None else torch.cat(found).detach()

    @property
    def active(self) -> bool:
        return bool(self.adapters) and not self.layers[0].disable_adapters

    def refresh(self) -> None:
        """Take over what the optimiser made of the factors."""
        self.a = paired(torch.cat([one.padded(one.a) for one in self.adapters]))  # (rank / 2, in)
        scaled = [one.padded(one.scale * one.a) for one in self.adapters]
        self.a_t = paired(torch.cat(scaled).T)  # (in / 2, rank)
        own = [one.padded(one.b.T) for one in self.adapters]
        self.b_t = [paired(b) for b in own]  # each (rank / 2, out)
        self.b = [paired(b.T) for b in own]  # each (out / 2, rank)

    def parts(self) -> Tensor:
        """(adapters, 5) int64: the address of each one's B and where it lies, as `part` of kernels.c."""
        found = []
        for one, b in zip(self.adapters, self.b_t, strict=True):
            half_rank, columns, _ = b.shape
            found.append([b.data_ptr(), one.columns.start, columns, one.ranks.start, 2 * half_rank])
        return torch.tensor(found)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """y, and the adapters' sxAᵀ, which the backward pass needs."""
        y = self.weight.product(x, self.bias)
        if not self.active:
            return y, None
        low = x.new_empty(len(x), self.rank)
        project(x, self.a_t, low, 1.0)
        for one, b_t in zip(self.adapters, self.b_t, strict=True):
            expand(low[:, one.ranks], b_t, y[:, one.columns])
        return y, low

    def input_gradient(self, dy: Tensor) -> tuple[Tensor, Tensor]:
        """dx, and the adapters' sdyB, which their gradients need."""
        dx, low = self.transposed.product(dy), dy.new_empty(len(dy), self.rank)
        for one, b in zip(self.adapters, self.b, strict=True):
            project(dy[:, one.columns], b, low[:, one.ranks], one.scale)
        if self.adapters:
            expand(low, self.a, dx)
        return dx, low

    def accumulate(self, x: Tensor, low: Tensor, dy: Tensor, dlow: Tensor) -> None:
        """Add the adapters' gradients to their `.grad`."""
        for one in self.adapters:
            outer(dlow[:, one.ranks], x, one.a, transpose=False)
            outer(low[:, one.ranks], dy[:, one.columns], one.b, transpose=True)


def project(x: Tensor, factor: Tensor, low: Tensor, scale: float) -> None:
    """low = scale · x · factor."""
    kernels.call("project", x, x.stride(0), factor, low, low.stride(0), *x.shape, low.shape[1], scale)


def expand(low: Tensor, factor: Tensor, y: Tensor) -> None:
    """y += low · factor."""
    kernels.call("expand", low, low.stride(0), factor, y, y.stride(0), *y.shape, low.shape[1])


def outer(low: Tensor, x: Tensor, weight: Tensor, *, transpose: bool) -> None:
    """The weight's gradient += lowᵀ · x, or its transpose."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    shape = (*x.shape, low.shape[1], weight.shape[1 if transpose else 0])
    kernels.call("outer", low, low.stride(0), x, x.stride(0), weight.grad, *shape, int(transpose))


def paired(factor: Tensor) -> Tensor:
    """(rows, columns) → (rows / 2, columns, 2): a pair is two neighbours of the dimension that is summed."""
    return factor.unflatten(0, (-1, 2)).transpose(1, 2).contiguous()


def _frozen(layer) -> Tensor:
    return getattr(layer, "base_layer", layer)
