"""The written-out models against transformers' own in float32, on the same bfloat16 weights."""

import copy
import gc
import shutil
import weakref
from functools import cache
from types import SimpleNamespace

import pytest
import tiny
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model

from storyforge.core.assets import Origin
from storyforge.core.records import Exchange
from storyforge.engine import decoding, kernels
from storyforge.engine.attention import Heads, Laid, attend
from storyforge.engine.decoding import _Past, logits
from storyforge.engine.linear import expand, paired, project
from storyforge.engine.llama import Tape, fused
from storyforge.engine.rows import distinct
from storyforge.model.bases import described
from storyforge.model.encoding import collate
from storyforge.model.likelihood import add_gradients, reply_nll, story_nll
from storyforge.model.loading import ModelParams, attach, load_base, load_encoder

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no C compiler with OpenMP here")
FAMILIES = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("mistral", {"head_dim": 32}),  # the heads together are wider than the model
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
}
each_family = pytest.mark.parametrize("family", FAMILIES, indirect=True)


@pytest.fixture
def family(request):
    return getattr(request, "param", None)


@pytest.fixture
def model_params(model_params, tiny_model_dir, family, tmp_path):
    """The tiny Llama, or a base of the family that a test asks for, with the same tokenizer."""
    if family is None:
        return model_params
    (kind, changes), rows = FAMILIES[family], described(model_params).vocab_size
    torch.manual_seed(0)
    made = tiny.uneven(tiny.model(kind, rows, initializer_range=0.1, **changes))
    folder = shutil.copytree(tiny_model_dir, tmp_path / "base")
    made.save_pretrained(folder)
    return model_params.model_copy(update={"origin": Origin.parse(f"folder:{folder}")})


@pytest.fixture
def model(model_params, lora):
    """An adapted base in bfloat16, both made of values that bfloat16 holds exactly."""
    torch.manual_seed(2)
    model = attach(load_base(model_params.model_copy(update={"precision": "bf16"})), lora, seed=1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
            if weight.requires_grad:
                weight.copy_(weight.bfloat16())
    return model


def exact(model):
    return copy.deepcopy(model).float()


def gradients(model):
    return {name: w.grad.clone() for name, w in model.named_parameters() if w.requires_grad}


def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients.values()])


@each_family
def test_gradient_and_loss_are_those_of_autograd_in_float32(model, encoded):
    reference = exact(model)
    expected = reply_nll(reference, collate(encoded, "cpu")).sum()
    (expected * 0.01).backward()
    found = fused(model).gradients(encoded, 0.01)
    assert sum(found) == pytest.approx(expected.item(), rel=2e-3)
    wanted = gradients(reference)
    for name, gradient in gradients(model).items():
        error = (gradient - wanted[name]).norm() / wanted[name].norm()
        assert error < 0.02, f"{name}: {error:.4f}"  # bfloat16 rounds by up to 0.004


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="here it is what is tested above")
def test_a_processor_that_lacks_the_instruction_gets_the_same_to_rounding(model, encoded, monkeypatch):
    fused(model).gradients(encoded, 1.0)
    usual = flat(gradients(model))
    model.zero_grad()
    monkeypatch.setattr(kernels, "FLAGS", (*kernels.FLAGS, "-mno-avx512bf16"))
    for name in ("library", "_loaded"):
        monkeypatch.setattr(kernels, name, cache(getattr(kernels, name).__wrapped__))
    fused(model).gradients(encoded, 1.0)
    assert not torch.equal(flat(gradients(model)), usual)  # other kernels did run
    assert (flat(gradients(model)) - usual).norm() < 0.005 * usual.norm()


def test_gradients_add_up(model, encoded):
    fast = fused(model)
    fast.gradients(encoded[:1], 1.0)
    once = gradients(model)
    fast.gradients(encoded[:1], 1.0)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, 2 * once[name])


def test_adapter_steps_are_taken_over(model, encoded):
    before = fused(model).token_nll(encoded)
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if "lora_B" in name).add_(0.5)
    assert not torch.equal(fused(model).token_nll(encoded), before)


@each_family
def test_stories_score_alone_as_in_company(model, encoded):
    together = story_nll(model, encoded)
    for row, nll in zip(encoded, together, strict=True):
        assert story_nll(model, [row]) == pytest.approx([nll], rel=1e-3)


def test_what_stories_begin_with_alike_is_computed_once(model, encoded, monkeypatch):
    alike = encoded[0].ids[:40]
    texts = ([*alike, 5, 6, 7], [*alike, 5, 8], [9, *alike], [*alike, 5, 6, 7])
    rows = [SimpleNamespace(ids=ids, reply_start=len(ids) - 1) for ids in texts]
    found, computed = fused(model), []
    norm = found.norm
    monkeypatch.setattr(found, "norm", lambda h, *rest: computed.append(len(h)) or norm(h, *rest))
    together = story_nll(model, rows)
    *each_layer, scored = computed
    assert set(each_layer) == {40 + 3 + 1 + 41} and scored == 4  # tokens of which the past is another one
    assert together == pytest.approx([nll for row in rows for nll in story_nll(model, [row])], rel=1e-3)
    first, which = distinct(texts)
    ids = torch.tensor([token for ids in texts for token in ids])
    assert torch.equal(ids[first][which], ids) and distinct(texts[1:3]) is None


@each_family
def test_a_story_does_not_see_its_neighbours(model, encoded):
    first, second, third = encoded[:3]
    with_second, with_third = (fused(model).token_nll([first, other]) for other in (second, third))
    assert torch.allclose(with_second[: first.reply_tokens], with_third[: first.reply_tokens], rtol=1e-3)


@each_family
def test_without_its_adapter_the_model_is_the_base(model, model_params, encoded):
    base = load_base(model_params.model_copy(update={"precision": "bf16"}))
    with model.disable_adapter():
        assert story_nll(model, encoded) == story_nll(base, encoded)
    assert story_nll(model, encoded) != story_nll(base, encoded)


@each_family
def test_next_token_logits_are_those_of_the_whole_text(model, encoded):
    texts = [row.ids for row in encoded[:3]]
    steps = logits(fused(model), [text[:-5] for text in texts], room=5)
    reference, scores = exact(model), next(steps)
    for left in range(5, 0, -1):
        for row, text in enumerate(texts):
            whole = reference(input_ids=torch.tensor([text[: len(text) - left]])).logits[0, -1]
            torch.testing.assert_close(scores[row], whole, rtol=0, atol=0.02 * whole.abs().max().item())
        scores = steps.send((torch.tensor([text[-left] for text in texts]), torch.arange(3)))


@each_family
def test_rows_that_stay_go_on_as_if_the_others_had_never_been(model, encoded):
    texts = [encoded[number].ids[:40] for number in range(3)]
    together, alone = logits(fused(model), texts, room=3), logits(fused(model), [texts[1]], room=3)
    next(together), next(alone)
    for stay in ([0, 1], [1], [0]):
        token = torch.tensor([7])
        scores = together.send((token.expand(len(stay)), torch.tensor(stay)))
        (expected,) = alone.send((token, torch.tensor([0])))
        torch.testing.assert_close(scores[stay.index(1) if 1 in stay else 0], expected, rtol=2e-2, atol=0.05)


def test_a_step_holds_what_its_kernels_point_to(model, encoded):
    """The next forward pass takes the adapters over anew, and lets go of the tensors that it had made."""
    writing = logits(fused(model), [encoded[0].ids], room=3)
    next(writing)
    writing.send((torch.tensor([7]), torch.tensor([0])))
    held = weakref.ref(fused(model).layers[0].qkv.b_t[0])
    fused(model).token_nll(encoded[:1])
    gc.collect()
    assert held() is not None
    writing.close()
    gc.collect()
    assert held() is None


def test_prompts_that_are_read_in_parts_and_once_for_all_rows_that_have_them(model, encoded, monkeypatch):
    texts = [encoded[number].ids[:40] for number in (0, 1, 0, 2, 1)]
    read, reads = _Past.read, []
    monkeypatch.setattr(_Past, "read", lambda past, part: reads.append(len(part)) or read(past, part))
    whole = logits(fused(model), texts, room=3)
    stay, expected = torch.arange(5), next(whole)
    monkeypatch.setattr(decoding, "READ_AT_ONCE", 100)
    parts = logits(fused(model), texts, room=3)
    found = next(parts)
    for number in range(3):
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=0.05)
        tokens = torch.tensor([7, 8, 9, 10, 11]) + number  # rows with the same prompt go their own ways
        expected, found = whole.send((tokens, stay)), parts.send((tokens, stay))
    assert reads == [3, 2, 1]  # three different texts; then two of them and one


ALONE = (None, None, 0, 0)  # no adapter


def test_attention_to_the_past_gives_the_bits_of_attention_to_the_whole_text():
    heads, lengths, room = Heads(groups=2, shared=3, width=32), [5, 16, 39], 20
    generator = torch.Generator().manual_seed(1)
    whole = [torch.randn(n + room, 2 * 5 * 32, generator=generator).bfloat16() for n in lengths]
    angles = [torch.rand(64, 16, generator=generator) for _ in range(2)]

    def attended(parts):
        laid = Laid(torch.zeros(0), [len(part) for part in parts], tuple(angles))
        return attend(torch.cat(parts), laid, heads)[0].split(laid.lengths)

    keys, values = (torch.zeros(3, 2, 16, 64, dtype=torch.int32) for _ in range(2))
    starts, sizes = torch.tensor([0, 5, 21, 60]), (2, 3, 32, 64)
    read = torch.cat([part[:n] for part, n in zip(whole, lengths, strict=True)])
    kernels.call("remember", read, *angles, starts, 3, 48, *sizes, keys, values)
    for more in range(room):
        at, new = torch.tensor(lengths) + more, torch.stack([part[more - room] for part in whole])
        slots, mixed = torch.arange(3), new.new_empty(3, 2 * 3 * 32)
        past = (*angles, slots, at, keys, values, mixed)
        kernels.call("next_attend", new, *ALONE, None, 0.0, *past, None, None, 0, 3, *sizes, 32**-0.5)
        expected = attended([part[: n + more + 1] for part, n in zip(whole, lengths, strict=True)])
        assert torch.equal(mixed, torch.stack([part[-1] for part in expected]))


def test_a_steps_kernels_give_the_bits_of_those_of_the_forward_pass():
    """Two adapters side by side, of ranks 16 and 32, on what is added; one of rank 80 on what comes next."""
    generator = torch.Generator().manual_seed(2)

    def new(*shape):
        return torch.randn(shape, generator=generator).bfloat16()

    rows, width = 5, 96
    low, a, (b1, b2) = new(rows, 48), paired(new(width, 80)), (paired(new(n, width)) for n in (16, 32))
    parts = torch.tensor([[b1.data_ptr(), 0, width, 0, 16], [b2.data_ptr(), width, width, 16, 32]])
    product, h, weight = new(rows, 2 * width), new(rows, width), torch.rand(width, generator=generator)
    added = product.clone()
    expand(low[:, :16], b1, added[:, :width])
    expand(low[:, 16:], b2, added[:, width:])

    def low_of(x):
        found = new(rows, 80)
        project(x, a, found, 1.0)
        return found

    gated, y, next_low = (new(rows, n) for n in (width, width, 80))
    kernels.call("swiglu", added, gated, *gated.shape)
    arguments = (low, parts, 2, 48, y, a, next_low, 80, rows, width)
    kernels.call("next_swiglu", product.clone(), *arguments)
    assert torch.equal(y, gated) and torch.equal(next_low, low_of(gated))

    total, normed, x = torch.empty_like(h), torch.empty_like(h), torch.empty_like(h)
    one = added[:, width:].contiguous()
    kernels.call("add_norm", h, one, weight, total, normed, *h.shape, 1e-5)
    parts[1, 1] = 0
    arguments = (low, parts[1:], 1, 48, h, weight, x, a, next_low, 80, rows, width, 1e-5)
    kernels.call("next_norm", product[:, width:].contiguous(), *arguments)
    assert torch.equal(h, total) and torch.equal(x, normed) and torch.equal(next_low, low_of(normed))


def test_attention_shared_out_among_many_threads_gives_the_same_bits(monkeypatch):
    heads, lengths = Heads(groups=2, shared=3, width=32), [5, 16, 119]
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(sum(lengths), 2 * 5 * 32, generator=generator).bfloat16()
    laid = Laid(torch.zeros(0), lengths, tuple(torch.rand(128, 16, generator=generator) for _ in range(2)))
    found = []
    for threads in (1, 5, 200):  # one part; three; more than there are blocks
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(attend(qkv, laid, heads))
    for mixed, shares in found[1:]:
        assert torch.equal(mixed, found[0][0]) and torch.equal(shares, found[0][1])


def test_reading_a_prompt_keeps_of_no_layer_what_only_training_needs(model, encoded, monkeypatch):
    """Attention probabilities grow with the square of a prompt, and there are as many as layers."""
    found, held = fused(model), []
    norm = found.norm

    def counted(*args):
        held.append(sum(type(each) is Tape for each in gc.get_objects()))
        return norm(*args)

    monkeypatch.setattr(found, "norm", counted)
    next(logits(found, [encoded[3].ids], room=1))
    assert len(held) == 2 * len(found.layers) + 1 and max(held) == 0


@each_family
def test_more_rows_than_fit_into_a_block_and_a_one_token_prompt(model, encoded):
    texts = [encoded[0].ids[:1], encoded[3].ids[:70]]
    scores = next(logits(fused(model), texts, room=1))
    for row, text in enumerate(texts):
        whole = exact(model)(input_ids=torch.tensor([text])).logits[0, -1]
        torch.testing.assert_close(scores[row], whole, rtol=0, atol=0.02 * whole.abs().max().item())


def test_training_uses_it_and_the_base_weights_stay(model, encoded, monkeypatch):
    frozen = {name: w.clone() for name, w in model.named_parameters() if not w.requires_grad}
    called = []
    monkeypatch.setattr(
        type(fused(model)), "gradients", lambda self, rows, weigh: called.append(rows) or [1.0]
    )
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    assert add_gradients(model, encoded[:2], 1.0, accelerator) == [1.0] and called == [encoded[:2]]
    monkeypatch.undo()
    fused(model).gradients(encoded[:2], 1.0)
    assert all(torch.equal(w, frozen[name]) for name, w in model.named_parameters() if name in frozen)


def test_a_weight_that_is_not_finite_makes_a_loss_that_is_not(model, encoded):
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if "lora_B" in name).fill_(float("nan"))
    assert not all(map(torch.isfinite, fused(model).token_nll(encoded)))


@pytest.mark.parametrize(
    ("precision", "changes"),
    [("fp32", {}), ("bf16", {"dropout": 0.1}), ("bf16", {"targets": ("q_proj", "v_proj")})],
)
def test_what_it_does_not_know_is_left_to_transformers(model_params, lora, precision, changes):
    base = load_base(model_params.model_copy(update={"precision": precision}))
    assert fused(attach(base, lora.model_copy(update=changes), seed=1)) is None


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"use_rslora": True, "alpha_pattern": {"q_proj": 3}}, True),
        ({"modules_to_save": ["lm_head"]}, False),
        ({"modules_to_save": ["norm"]}, False),
        ({"trainable_token_indices": [7]}, False),
        ({"lora_bias": True}, False),
        ({"use_dora": True}, False),
        ({"target_parameters": ["embed_tokens.weight"]}, False),
    ],
)
def test_anything_but_plain_lora_is_left_to_transformers(model_params, changes, known):
    base = load_base(model_params.model_copy(update={"precision": "bf16"}))
    tuned = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", **changes))
    assert (fused(tuned) is not None) is known


@pytest.mark.parametrize(
    ("kind", "changes", "known"),
    [
        ("mistral", {"sliding_window": None}, True),
        ("mistral", {"sliding_window": 512}, True),  # no text is longer
        ("mistral", {"sliding_window": 511}, False),
        *((kind, {"use_sliding_window": True, "max_window_layers": 1}, False) for kind in ("qwen2", "qwen3")),
        ("qwen2", {"use_sliding_window": False, "max_window_layers": 1}, True),
        ("qwen3", {"use_sliding_window": True, "max_window_layers": 2}, True),  # all layers are below them
        ("qwen3", {"head_dim": 24}, False),
        ("olmo2", {}, False),
        ("granite", {}, False),
    ],
)
def test_sliding_windows_and_other_families_are_left_to_transformers(kind, changes, known):
    model = tiny.rounded(tiny.model(kind, 300, **changes), torch.bfloat16)
    assert (fused(model) is not None) is known


def test_activation_checkpointing_is_left_to_transformers(model):
    model.activation_checkpointing_enable({"use_reentrant": False})
    assert fused(model) is None


def test_of_several_adapters_the_active_one_counts(model, model_params, encoded):
    alone, before = fused(model), story_nll(model, encoded)
    other = LoraConfig(r=20, lora_alpha=10, target_modules="all-linear")  # another rank, and another scale
    model.add_adapter("other", other)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B.other" in name:
                weight.normal_(std=0.05)
    assert fused(model) not in (None, alone) and story_nll(model, encoded) == before
    model.set_adapter("other")
    text = encoded[0].ids[:40]
    whole = exact(model)(input_ids=torch.tensor([text])).logits[0, -1]
    (scores,) = next(logits(fused(model), [text], room=1))
    torch.testing.assert_close(scores, whole, rtol=0, atol=0.02 * whole.abs().max().item())
    changed = story_nll(model, encoded)
    with model.disable_adapter():
        base = story_nll(model, encoded)
    assert len({tuple(before), tuple(changed), tuple(base)}) == 3
    model.set_adapter("default")
    assert story_nll(model, encoded) == before


def test_an_adapter_that_takes_the_name_of_a_deleted_one_is_another(model, encoded):
    config, found = model.peft_config["default"], []
    for std in (0.05, 0.2):
        model.add_adapter("other", config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B.other" in name:
                    weight.normal_(std=std)
        model.set_adapter("other")
        found.append(story_nll(model, encoded))
        model.set_adapter("default")
        model.delete_adapter("other")
    assert found[0] != found[1]


def test_the_base_under_an_adapter_is_no_model_of_its_own(model):
    assert fused(model.get_base_model()) is None


def test_two_active_adapters_and_one_on_other_layers_are_left_to_transformers(model):
    model.add_adapter("other", model.peft_config["default"])
    model.base_model.set_adapter(["default", "other"])
    assert fused(model) is None
    model.set_adapter("default")
    assert fused(model) is not None
    model.add_adapter("few", LoraConfig(r=4, target_modules=["q_proj"]))
    assert fused(model) is None


def test_the_number_of_threads_changes_no_bit_of_a_kernel():
    logits = torch.randn(64, 4096, generator=torch.Generator().manual_seed(1)).bfloat16()
    targets, found = torch.arange(64), []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        slope, nll = logits.clone(), torch.empty(64)
        kernels.call("cross_entropy", slope, targets, nll, *slope.shape, 1.0)
        found.append((slope, nll))
    torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    expected = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
    torch.testing.assert_close(found[0][1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_on_the_default_model_it_is_no_further_from_float32_than_autograd_is(lora):
    params = ModelParams.load().model_copy(update={"precision": "bf16", "attention": "eager"})
    encoder = load_encoder(params)
    play = "\n".join(f"FIRST GHOST. I saw the {n} ships go down." for n in range(12))
    rows = [
        encoder.exchange(Exchange(f"{n}", "made", "g", f"Tell of {n} ships.", play[n * 40 :], True), 400)
        for n in range(3)
    ]
    model = attach(load_base(params), lora, seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.02)
    reference = exact(model)
    reply_nll(reference, collate(rows, "cpu")).sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        reply_nll(model, collate(rows, "cpu")).sum().backward()
    wanted, by_autograd = flat(gradients(reference)), flat(gradients(model))
    model.zero_grad()
    fused(model).gradients(rows, 1.0)
    error = (flat(gradients(model)) - wanted).norm() / wanted.norm()
    assert error < 0.06 and error < 1.2 * (by_autograd - wanted).norm() / wanted.norm()
