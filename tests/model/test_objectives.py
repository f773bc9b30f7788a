"""Every objective: its gradient against autograd's of the loss as the papers write it, and what it logs."""

import copy
import math
from functools import partial

import pytest
import torch
from accelerate import Accelerator

from storyforge.engine import kernels
from storyforge.engine.llama import fused
from storyforge.model.cuts import item_batches
from storyforge.model.encoding import collate
from storyforge.model.likelihood import add_gradients, reply_nll, story_nll
from storyforge.model.loading import attach, load_base
from storyforge.model.objectives import Whole, dpo, sft, simpo

logsigmoid = torch.nn.functional.logsigmoid


@pytest.fixture
def pairs(encoded):
    return [(encoded[n], encoded[n + 4]) for n in range(4)]


@pytest.fixture
def reference(pairs):
    """Such as a writer would give that is a little off from what is trained: z is between -1 and 1."""
    return {chosen.id: (90.0 + 3 * n, 120.0 - 2 * n) for n, (chosen, _) in enumerate(pairs)}


def stories(pairs):
    return [(row,) for pair in pairs for row in pair]


def tokens(items):
    return sum(row.reply_tokens for item in items for row in item)


def by_pair(nlls):
    return nlls[::2], nlls[1::2]


def papers_sft(nlls, pairs, reference):
    return nlls.sum() / tokens(pairs)


def papers_dpo(nlls, pairs, reference, nll=0.0):
    chosen, rejected = by_pair(nlls)
    before = torch.tensor([reference[pair[0].id] for pair in pairs])
    ratios = (before[:, 0] - chosen) - (before[:, 1] - rejected)
    lengths = torch.tensor([float(pair[0].reply_tokens) for pair in pairs])
    return (-logsigmoid(0.1 * ratios) + nll * chosen / lengths).mean()


def papers_simpo(nlls, pairs, reference):
    lengths = torch.tensor([[float(row.reply_tokens) for row in pair] for pair in pairs])
    chosen, rejected = by_pair(nlls)
    return -logsigmoid(2.0 * (rejected / lengths[:, 1] - chosen / lengths[:, 0]) - 0.5).mean()


OBJECTIVES = {
    "sft": (sft, papers_sft),
    "dpo": (partial(dpo, beta=0.1, nll=0.0), papers_dpo),
    "dpo with the NLL": (partial(dpo, beta=0.1, nll=0.2), partial(papers_dpo, nll=0.2)),
    "simpo": (partial(simpo, beta=2.0, gamma=0.5), papers_simpo),
}


@pytest.fixture(params=OBJECTIVES)
def objective(request):
    return OBJECTIVES[request.param]


def as_the_paper(model, loss, pairs, reference):
    """The loss, and its gradient by autograd through all of it."""
    rows = [row for pair in pairs for row in pair]
    nll = reply_nll(model, collate(rows, "cpu"))
    nlls = torch.stack([part.sum() for part in nll.split([row.reply_tokens for row in rows])])
    model.zero_grad()
    (value := loss(nlls, pairs, reference)).backward()
    return value.item(), flat(model)


def flat(model):
    return torch.cat([w.grad.flatten() for w in model.parameters() if w.requires_grad])


def weighed(model, objective, pairs, reference, budget):
    """The same by factors, in micro-batches."""
    whole, figures = Whole(len(pairs), tokens(pairs), reference), {}
    model.zero_grad()
    for cut in item_batches(model, pairs, budget):

        def factors(nlls, cut=cut):
            found, part = objective(cut, nlls, whole)
            for name, value in part.items():
                figures[name] = figures.get(name, 0.0) + value
            return found

        rows = [row for item in cut for row in item]
        add_gradients(model, rows, factors, Accelerator(cpu=True, mixed_precision="no"))
    return figures, flat(model)


@pytest.mark.parametrize("budget", [1, 500, 10**6])
def test_factors_give_the_gradient_and_the_loss_of_the_paper(tuned, pairs, reference, objective, budget):
    ours, paper = objective
    loss, expected = as_the_paper(tuned, paper, pairs, reference)
    figures, found = weighed(tuned, ours, pairs, reference, budget)
    assert figures["loss"] == pytest.approx(loss, rel=1e-5)
    assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.skipif(kernels.library() is None, reason="no C compiler with OpenMP here")
def test_the_engine_is_as_near_as_with_plain_training(model_params, lora, pairs, reference, objective):
    """Within 2 % in bfloat16 of float32 on the same weights, as in tests/engine.

    Of what both texts of a pair pull, before they are subtracted: these are so alike that most of it
    cancels, and rounding does not.
    """
    ours, paper = objective
    model = attach(load_base(model_params.model_copy(update={"precision": "bf16"})), lora, seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
            if weight.requires_grad:
                weight.copy_(weight.bfloat16())
    loss, expected = as_the_paper(copy.deepcopy(model).float(), paper, pairs, reference)
    assert fused(model) is not None
    figures, found = weighed(model, ours, pairs, reference, 10**6)
    assert figures["loss"] == pytest.approx(loss, rel=1e-2)

    def unsigned(*arguments):
        factors, figures = ours(*arguments)
        return list(map(abs, factors)), figures

    _, both = weighed(model, unsigned, pairs, reference, 10**6)
    assert (found - expected).norm() < 0.02 * both.norm()


def test_a_number_for_all_weighs_as_that_number_for_each(tuned, encoded):
    found = []
    for weigh in (0.25, lambda nlls: [0.25] * len(nlls)):
        tuned.zero_grad()
        nlls = add_gradients(tuned, encoded, weigh, Accelerator(cpu=True, mixed_precision="no"))
        found.append((nlls, flat(tuned)))
    assert found[0][0] == found[1][0] == pytest.approx(story_nll(tuned, encoded), rel=1e-6)
    assert torch.equal(found[0][1], found[1][1])


def test_the_writer_itself_as_reference_has_a_loss_of_ln_2(tuned, pairs):
    nlls = story_nll(tuned, [row for pair in pairs for row in pair])
    own = {pair[0].id: two for pair, two in zip(pairs, zip(*by_pair(nlls), strict=True), strict=True)}
    factors, figures = dpo(pairs, nlls, Whole(len(pairs), tokens(pairs), own), beta=0.1, nll=0.0)
    assert figures["loss"] == pytest.approx(math.log(2), abs=1e-12)
    assert factors == pytest.approx([0.1 / 2 / len(pairs), -0.1 / 2 / len(pairs)] * len(pairs))


def test_a_pair_that_is_won_or_lost_by_far_neither_overflows_nor_hides_that_it_is_no_number(pairs):
    def lost(nll):
        whole = Whole(1, 100, {pairs[0][0].id: (0.0, 0.0)})
        return dpo(pairs[:1], (nll, 0.0), whole, beta=1.0, nll=0.0)

    assert lost(1e5)[0] == [1.0, -1.0] and lost(1e5)[1]["loss"] == 1e5
    assert lost(-1e5)[0] == [0.0, 0.0] and lost(-1e5)[1]["loss"] == 0.0
    assert math.isnan(lost(math.nan)[1]["loss"])


def test_the_rows_of_an_item_stay_together_and_within_the_budget(tuned, pairs):
    for budget in (1, 300, 700):
        cuts = item_batches(tuned, pairs, budget)
        assert sorted(item[0].id for cut in cuts for item in cut) == sorted(pair[0].id for pair in pairs)
        for cut in cuts:
            widest = max(len(row.ids) for item in cut for row in item)
            assert len(cut) == 1 or 2 * len(cut) * widest <= budget
    assert max(len(cut) for cut in item_batches(tuned, pairs, 10**6)) == len(pairs)
