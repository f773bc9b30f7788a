"""CUDA beyond the plain path: kernels that repeat their bits, and faster ones where there are any."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, BitsAndBytesConfig
from transformers.masking_utils import sdpa_mask

AMPERE = (8, 0)  # flash attention and Triton's kernels begin here; a T4 is (7, 5)
REPEATED = "sdpa_repeated"

# Read when cuBLAS opens, after this: without it torch refuses deterministic products.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# On Hopper and Blackwell torch takes cuDNN's attention first, which makes a plan for each new shape: 0.4 to
# 1 s, where batches of stories and every written token have new shapes. Training never takes it, since it
# does not repeat its bits. The others serve whatever a model asks for.
torch.backends.cuda.enable_cudnn_sdp(False)


def fused_kernels() -> str | None:
    """liger-kernel with its version, where it is installed and this GPU can run it."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < AMPERE:
        return None
    try:
        return f"liger-kernel {version('liger-kernel')}"
    except PackageNotFoundError:
        return None


def fuse(model) -> None:
    """liger's norm, rotation and gated product in a Llama, where there is liger.

    Its cross-entropy is left out: ours sends reply positions alone through the head.
    """
    if not fused_kernels() or model.config.model_type != "llama":
        return
    from liger_kernel.transformers import apply_liger_kernel_to_llama  # an extra: requirements-cuda.txt

    apply_liger_kernel_to_llama(cross_entropy=False, fused_linear_cross_entropy=False, model=model)


def four_bit(dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with double quantisation (Dettmers et al. 2023), stored as `dtype` so that FSDP2 can shard it."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,
    )


def attention() -> str:
    """The name of the attention for this GPU.

    Before Ampere only the memory-efficient kernel is left, which wants as many keys as queries. Given fewer,
    as transformers does, torch falls back to all scores in memory (huggingface/transformers#48633).
    """
    return "sdpa" if torch.cuda.get_device_capability() >= AMPERE else REPEATED


@contextmanager
def repeatable() -> Iterator[None]:
    """Inside, CUDA repeats its bits or raises RuntimeError: generation's `cumsum` would, so training alone.

    A warning would not do: memory-efficient attention then still adds up its gradients in any order.
    """
    if not torch.cuda.is_available():
        yield
        return
    torch.set_float32_matmul_precision("highest")  # no TF32
    torch.utils.deterministic.fill_uninitialized_memory = False  # it costs a pass over each new tensor
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _repeated(
    _module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options
) -> tuple[Tensor, None]:
    """(batch, heads, length, width) each; keys and values repeated until there are as many as queries."""
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    found = scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=attention_mask,
        dropout_p=options.get("dropout", 0.0),
        is_causal=attention_mask is None and query.shape[2] > 1,
        scale=options.get("scaling"),
    )
    return found.transpose(1, 2).contiguous(), None


AttentionInterface.register(REPEATED, _repeated)
AttentionMaskInterface.register(REPEATED, sdpa_mask)  # none where the causal one will do
