"""Products where the processor has no bfloat16 of its own, on any processor."""

import pytest
import torch

from storyforge.engine import fits, kernels, linear
from storyforge.engine.linear import Frozen
from storyforge.engine.llama import fused
from storyforge.model import device
from storyforge.model.loading import attach, load_base

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no C compiler with OpenMP here")


@pytest.fixture(autouse=True)
def no_units(monkeypatch):
    for module in (linear, fits, device):
        monkeypatch.setattr(module, "bf16_units", lambda: ())


def values(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize(("columns", "width"), [(96, 64), (265, 48), (64, 265), (1, 2), (130, 7)])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 13, 33, 300])
def test_a_product_is_that_of_float32_rounded_once(rows, columns, width):
    x, weight, bias = values(rows, width), values(columns, width, seed=2), values(columns, seed=3)
    frozen = Frozen(weight)
    exact = x.double() @ weight.double().T
    for found, wanted in ((frozen.product(x), exact), (frozen.product(x, bias), exact + bias.double())):
        assert found.shape == wanted.shape
        # Half a unit in the last of bfloat16's 8 places, and what float32 loses on the way.
        torch.testing.assert_close(found.double(), wanted, rtol=2**-8, atol=1e-5 * width**0.5)


def test_a_row_has_the_same_bits_whatever_is_multiplied_with_it():
    x, frozen = values(150, 576), Frozen(values(272, 576, seed=2))
    whole = frozen.product(x)
    for first, last in ((0, 1), (3, 5), (1, 8), (5, 18), (17, 150)):
        assert torch.equal(frozen.product(x[first:last]), whole[first:last])


def test_the_number_of_threads_changes_no_bit():
    x, frozen, before, found = values(70, 576), Frozen(values(960, 576, seed=2)), torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(frozen.product(x))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_what_is_not_finite_stays_where_it_is():
    x, frozen = values(9, 32), Frozen(values(48, 32, seed=2))
    usual = frozen.product(x)
    x[4, 7] = torch.nan
    found = frozen.product(x)
    assert found[4].isnan().all()
    assert torch.equal(found[torch.arange(9) != 4], usual[torch.arange(9) != 4])


@pytest.mark.parametrize(
    ("changes", "kind", "compiled", "expected"),
    [
        ({}, "llama", True, "bf16"),
        ({}, "llama", False, "fp32"),
        ({}, "olmo2", True, "fp32"),
        ({"precision": "fp32"}, "llama", True, "fp32"),
        ({"quantization": "nf4"}, "llama", True, "fp32"),
    ],
)
def test_auto_is_bf16_where_there_are_kernels_for_the_base(
    model_params, monkeypatch, changes, kind, compiled, expected
):
    config = device.described(model_params)
    config.model_type = kind
    monkeypatch.setattr(device, "described", lambda _: config)
    if not compiled:
        monkeypatch.setattr(kernels, "library", lambda: None)
    assert device.precision(model_params.model_copy(update={"precision": "auto", **changes})) == expected


def test_auto_asks_for_no_description_where_the_processor_has_bfloat16(model_params, monkeypatch):
    monkeypatch.setattr(device, "bf16_units", lambda: ("AMX",))
    monkeypatch.setattr(device, "described", lambda _: pytest.fail("fetched"))
    assert device.precision(model_params.model_copy(update={"precision": "auto"})) == "bf16"


def test_an_adapter_that_leaves_the_kernels_is_told_once_what_is_faster(model_params, lora, capsys):
    base = load_base(model_params.model_copy(update={"precision": "bf16"}))
    model = attach(base, lora.model_copy(update={"dropout": 0.1}), seed=1)
    assert fused(model) is None and fused(model) is None
    assert capsys.readouterr().err == f"{fits.EMULATED}\n"


def test_a_float32_base_is_told_nothing(model_params, lora, capsys):
    assert fused(load_base(model_params.model_copy(update={"precision": "fp32"}))) is None
    assert capsys.readouterr().err == ""
