import math

import pytest
import torch
from accelerate import Accelerator
from transformers.integrations import sdpa_attention

from storyforge.core.errors import UserError
from storyforge.model import cuda
from storyforge.model.encoding import singly
from storyforge.model.likelihood import story_nll
from storyforge.model.loading import adapter_weights, attach, load_base
from storyforge.train import loop
from storyforge.train.schedule import batches

ON_CUDA = "needs CUDA"


@pytest.fixture
def calls(monkeypatch):
    """What torch's attention was given: (mask, is_causal, heads of the queries, of the keys)."""
    seen, attend = [], torch.nn.functional.scaled_dot_product_attention

    def noted(query, key, value, attn_mask=None, is_causal=False, **options):
        seen.append((attn_mask, is_causal, query.shape[1], key.shape[1]))
        return attend(query, key, value, attn_mask=attn_mask, is_causal=is_causal, **options)

    monkeypatch.setattr(sdpa_attention.torch.nn.functional, "scaled_dot_product_attention", noted)
    monkeypatch.setattr(cuda, "scaled_dot_product_attention", noted)
    return seen


@pytest.mark.parametrize(("attention", "heads"), [("sdpa", (4, 2)), (cuda.REPEATED, (4, 4))])
def test_padded_stories_take_the_causal_path_without_a_mask(
    model_params, lora, encoded, calls, attention, heads
):
    """With a mask torch's flash attention refuses, and with fewer keys the memory-efficient one does."""
    eager = story_nll(load_base(model_params), encoded)
    model = load_base(model_params)
    model.set_attn_implementation(attention)
    found = story_nll(model, encoded)
    assert len({len(row.ids) for row in encoded}) > 1
    assert calls == [(None, True, *heads)] * 2
    assert found == pytest.approx(eager, rel=1e-5)


def test_repeated_keys_serve_generation_too(base, encoded):
    """One new token at a time, behind a cache, padded on the left."""
    ids = torch.tensor([[0] * 5 + list(encoded[0].ids[:20]), list(encoded[1].ids[:25])])
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    wanted = base.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=8)
    base.set_attn_implementation(cuda.REPEATED)
    assert torch.equal(base.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=8), wanted)


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), cuda.REPEATED), ((8, 0), "sdpa"), ((9, 0), "sdpa")]
)
def test_a_gpu_before_ampere_gets_repeated_keys_and_no_fused_kernels(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(cuda, "version", lambda name: "0.8.5")
    assert cuda.attention() == expected
    assert cuda.fused_kernels() == (None if capability < (8, 0) else "liger-kernel 0.8.5")


def test_without_liger_nothing_is_fused(monkeypatch, base):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))

    def missing(name):
        raise cuda.PackageNotFoundError(name)

    monkeypatch.setattr(cuda, "version", missing)
    cuda.fuse(base)
    assert cuda.fused_kernels() is None


def test_attention_that_makes_a_plan_for_each_new_shape_is_never_taken():
    kinds = torch.backends.cuda
    assert not kinds.cudnn_sdp_enabled()
    assert kinds.flash_sdp_enabled() and kinds.mem_efficient_sdp_enabled() and kinds.math_sdp_enabled()


def test_training_asks_cuda_for_kernels_that_repeat_and_generation_does_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with cuda.repeatable():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def scaled(monkeypatch):
    """An accelerator with the loss scaling of fp16; on a CPU, accelerate itself has none."""

    def made(scale):
        accelerator = Accelerator(cpu=True, mixed_precision="no")
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        monkeypatch.setattr(accelerator, "unscale_gradients", lambda: _unscale(accelerator))
        return accelerator

    return made


def _unscale(accelerator):
    for optimizer in accelerator._optimizers:
        accelerator.scaler.unscale_(optimizer.optimizer)


@pytest.fixture
def trained(model_params, lora, encoded, loop_params, tmp_path, monkeypatch):
    """A function that trains on all stories with the accelerator it is given."""

    def run(accelerator, folder="work", model=None, params=model_params, **changes):
        (tmp_path / folder).mkdir()
        monkeypatch.setattr(loop, "accelerator", lambda _: accelerator)
        model, chosen = (
            model or attach(load_base(params), lora, seed=1),
            loop_params.model_copy(update=changes),
        )
        plan, work = [singly(step) for step in batches(encoded, chosen)], tmp_path / folder
        return loop.train(model, plan, [], params, chosen, work=work, log=lambda *_: None)

    return run


def test_a_scaled_loss_trains_what_a_plain_one_does(trained, scaled):
    plain = trained(Accelerator(cpu=True, mixed_precision="no"), "a")
    run = trained(scaled(2.0**10), "b")
    for one, other in zip(plain.state.train, run.state.train, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-2)


def test_an_overflow_skips_the_step_and_halves_the_scale(model_params, lora, scaled, trained):
    accelerator, model = scaled(2.0**10), attach(load_base(model_params), lora, seed=1)
    weight = next(weight for weight in model.parameters() if weight.requires_grad)
    overflow = weight.register_hook(lambda gradient: overflow.remove() or gradient + math.inf)
    run = trained(accelerator, model=model)
    first, *others = [row["gradient_norm"] for row in run.state.train]
    assert not math.isfinite(first) and all(map(math.isfinite, others))
    assert run.state.train[0]["loss"] > run.state.train[-1]["loss"]
    assert accelerator.scaler.get_scale() == 2.0**9


def test_gradients_that_no_scale_saves_stop_the_run(model_params, lora, scaled, trained):
    model = attach(load_base(model_params), lora, seed=1)
    weight = next(weight for weight in model.parameters() if weight.requires_grad)
    weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(UserError, match="lower train.learning_rate"):
        trained(scaled(2.0), model=model)


def test_adapters_on_a_half_precision_base_are_float32(model_params, lora, monkeypatch):
    """`Attempting to unscale FP16 gradients` is what fp16 adapters would end in."""
    monkeypatch.setenv("STORYFORGE_ALLOW_CPU", "1")
    model = attach(load_base(model_params.model_copy(update={"precision": "fp16"})), lora, seed=1)
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    assert {weight.dtype for weight in adapter_weights(model).values()} == {torch.float32}
    assert model.get_base_model().lm_head.weight.dtype == torch.float16


def _on_gpu(model_params, **changes):
    if not torch.cuda.is_available():
        pytest.skip(ON_CUDA)
    return model_params.model_copy(update={"attention": "auto", **changes})


def _accelerator(precision):
    return Accelerator(mixed_precision=precision)


@pytest.mark.gpu
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_five_steps_on_a_gpu_are_the_same_bits(model_params, trained, quantization):
    params = _on_gpu(model_params, precision="bf16", quantization=quantization)
    one, other = (trained(_accelerator("bf16"), name, params=params, max_steps=5) for name in ("a", "b"))
    assert all(torch.equal(one.best[name], other.best[name]) for name in one.best)


@pytest.mark.gpu
def test_every_adapter_has_a_gradient_on_four_bits(model_params, lora, trained):
    params = _on_gpu(model_params, precision="bf16", quantization="nf4")
    run = trained(_accelerator("bf16"), params=params)
    fresh = adapter_weights(attach(load_base(params), lora, seed=1))
    assert all(not torch.equal(run.best[name], fresh[name]) for name in fresh)


@pytest.mark.gpu
def test_fp16_trains_on_a_gpu(model_params, trained):
    params = _on_gpu(model_params, precision="fp16", quantization="nf4")
    run = trained(_accelerator("fp16"), params=params)
    assert run.accelerator.scaler is not None
    assert run.state.train[-1]["loss"] < run.state.train[0]["loss"]


@pytest.mark.gpu
def test_fused_kernels_change_rounding_alone(model_params, encoded, monkeypatch):
    params = _on_gpu(model_params, precision="bf16")
    if not cuda.fused_kernels():
        pytest.skip("needs liger-kernel")
    fused = story_nll(load_base(params), encoded)
    monkeypatch.setattr(cuda, "fuse", lambda model: None)
    assert story_nll(load_base(params), encoded) == pytest.approx(fused, rel=2e-2)
