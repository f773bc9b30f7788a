import json
import math
import os
import shutil
import signal
from dataclasses import asdict, replace

import pytest
import tiny
import torch
from accelerate import Accelerator

from storyforge.core.errors import UserError
from storyforge.core.files import write_jsonl
from storyforge.model.encoding import collate, singly
from storyforge.model.heads import head
from storyforge.model.likelihood import reply_nll
from storyforge.model.loading import adapter_weights, attach, load_base
from storyforge.model.objectives import sft
from storyforge.train import step
from storyforge.train.checkpoints import newest
from storyforge.train.job import ready
from storyforge.train.loop import train
from storyforge.train.schedule import batches, learning_rate, steps
from storyforge.train.step import gradients, measured


class Killed(Exception):
    """Stands for kill -9: raised out of a step, with no chance to clean up."""


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True, mixed_precision="no")


@pytest.fixture
def trained(model_params, lora, encoded, tmp_path):
    """A function that trains on the nine stories, two of them for validation."""

    def run(params, work=tmp_path / "work", rows=encoded, **changes):
        work.mkdir(exist_ok=True)
        model = attach(load_base(model_params), lora.model_copy(update=changes), seed=1)
        plan = [singly(step) for step in batches(rows[2:], params)]
        return train(model, plan, singly(rows[:2]), model_params, params, work=work, log=lambda *_: None)

    return run


def assert_same(one, other):
    assert asdict(one.state) == asdict(other.state)
    assert one.best.keys() == other.best.keys()
    assert all(torch.equal(one.best[name], other.best[name]) for name in one.best)


def test_training_lowers_the_loss_and_keeps_the_best_adapter(trained, loop_params):
    run = trained(loop_params)
    losses = {row["step"]: row["loss"] for row in run.state.val}
    assert run.state.best_loss == min(losses.values()) == losses[run.state.best_step] < losses[0]
    assert list(losses) == [0, 2, 4, 6]


def test_two_runs_are_the_same_bits(trained, loop_params, tmp_path):
    assert_same(
        trained(loop_params, tmp_path / "a", dropout=0.3), trained(loop_params, tmp_path / "b", dropout=0.3)
    )


def test_a_run_killed_after_any_step_and_resumed_ends_with_the_same_bits(
    trained, loop_params, tmp_path, monkeypatch
):
    whole = trained(loop_params, tmp_path / "whole", dropout=0.3)
    take, deaths = step.take, iter(range(1, len(whole.state.train)))

    def dies(run, items, steps):
        take(run, items, steps)
        if run.state.step == dies.at:
            dies.at = next(deaths, None)
            raise Killed

    monkeypatch.setattr(step, "take", dies)
    dies.at, killed = next(deaths), 0
    while True:
        try:
            pieces = trained(loop_params, tmp_path / "pieces", dropout=0.3)
            break
        except Killed:
            killed += 1
    assert killed == len(whole.state.train) - 1
    assert_same(whole, pieces)


def test_a_broken_newest_checkpoint_costs_steps_not_bits(trained, loop_params, tmp_path, monkeypatch):
    whole = trained(loop_params, tmp_path / "whole")
    trained(loop_params, tmp_path / "again")
    (newest(tmp_path / "again") / "adapter.safetensors").write_bytes(b"torn")
    assert_same(whole, trained(loop_params, tmp_path / "again"))


def test_base_weights_are_untouched_and_adapter_weights_are_not(trained, loop_params, model_params):
    before = {name: weight.clone() for name, weight in load_base(model_params).state_dict().items()}
    run = trained(loop_params)
    base = run.model.unload().state_dict()
    assert all(torch.equal(before[name], base[name]) for name in before)
    assert any(weight.abs().max() > 0 for name, weight in run.best.items() if "lora_B" in name)


@pytest.mark.parametrize("budget", [1, 150, 300, 100_000])
def test_the_gradient_does_not_depend_on_the_micro_batches(tuned, encoded, accelerator, budget):
    def measured(micro_batch_tokens):
        tuned.zero_grad()
        loss = gradients(tuned, singly(encoded), sft, micro_batch_tokens, accelerator)["loss"]
        return loss, {name: w.grad.clone() for name, w in tuned.named_parameters() if w.requires_grad}

    loss, found = measured(budget)
    whole_loss, whole = measured(10**9)
    assert loss == pytest.approx(whole_loss, rel=1e-6)
    for name in whole:
        torch.testing.assert_close(found[name], whole[name], rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_mean_over_reply_tokens_not_over_stories(tuned, encoded, accelerator):
    def mean_nll(rows):
        return measured(tuned, singly(rows), sft, 300, accelerator)["loss"]

    each = [mean_nll([row]) * row.reply_tokens for row in encoded]
    by_tokens = sum(each) / sum(row.reply_tokens for row in encoded)
    by_stories = sum(nll / row.reply_tokens for nll, row in zip(each, encoded, strict=True)) / len(encoded)
    assert abs(by_tokens - by_stories) > 1e-3
    assert mean_nll(encoded) == pytest.approx(by_tokens, rel=1e-6)
    found = gradients(tuned.eval(), singly(encoded), sft, 300, accelerator)
    assert found["loss"] == pytest.approx(by_tokens, rel=1e-6)


SHARED = """
import os, signal
import torch
from accelerate import Accelerator
from storyforge.core.assets import Origin
from storyforge.model.loading import LoraParams, ModelParams, attach, load_base, load_encoder
from storyforge.model.encoding import collate, singly
from storyforge.model.heads import head
from storyforge.model.likelihood import reply_nll
from storyforge.train.schedule import LoopParams, batches
from storyforge.train import step
from storyforge.train.job import ready
from storyforge.train.loop import train
from storyforge.core.records import Exchange
from storyforge.core.files import read_jsonl
from pathlib import Path
accelerator = Accelerator(cpu=True, mixed_precision="no")
model_params = ModelParams.model_validate_json(Path({folder!r}, "model.json").read_text())
encoder = load_encoder(model_params)
rows = [encoder.exchange(e, 200) for e in read_jsonl(Path({folder!r}, "rows.jsonl"), Exchange)]
lora = LoraParams(r=4, alpha=8, dropout=0.0, targets="all-linear")
params = LoopParams.model_validate_json(Path({folder!r}, "loop.json").read_text())
work = Path({folder!r}, "work")
if accelerator.process_index == int(os.environ.get("STOPPED", -1)):
    take = step.take
    def signalled(run, items, steps):
        if run.state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        take(run, items, steps)
    step.take = signalled
model = attach(load_base(model_params), lora, seed=1)
plan = [singly(step) for step in batches(rows[2:], params)]
run = train(model, plan, singly(rows[:2]), model_params, params, work=work, log=lambda *_: None)
if accelerator.is_main_process:
    found = {{"best": run.best, "val": run.state.val, "n": accelerator.num_processes}}
    torch.save(found, Path({folder!r}, "out.pt"))
"""


@pytest.fixture
def two_processes(warm, model_params, loop_params, exchanges, tmp_path):
    """Trains in two processes; gives their statuses, and what the first of them found."""
    write_jsonl(tmp_path / "rows.jsonl", exchanges)
    (tmp_path / "model.json").write_text(model_params.model_dump_json())
    (tmp_path / "work").mkdir()
    (tmp_path / "script.py").write_text(SHARED.format(folder=str(tmp_path)))

    def run(loop_params, **settings):
        (tmp_path / "loop.json").write_text(loop_params.model_dump_json())
        statuses, out = warm.run(tmp_path / "script.py", processes=2, **settings), tmp_path / "out.pt"
        return statuses, torch.load(out, weights_only=True) if out.exists() else None

    return run


def test_two_processes_train_what_one_does_and_a_stop_signal_to_the_second_ends_both_after_a_saved_step(
    trained, loop_params, two_processes, tmp_path
):
    """The next run goes on from there to the adapter of one that was not stopped."""
    rarely = loop_params.model_copy(update={"checkpoint_every": 100})
    alone = trained(rarely, tmp_path / "alone")
    statuses, whole = two_processes(rarely)
    assert (statuses, whole["n"]) == ([0, 0], 2)
    for one, other in zip(alone.state.val, whole["val"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name, weight in alone.best.items():
        torch.testing.assert_close(whole["best"][name], weight, rtol=2e-2, atol=2e-4)

    shutil.rmtree(tmp_path / "work")
    (tmp_path / "work").mkdir()
    (tmp_path / "out.pt").unlink()
    assert two_processes(rarely, STOPPED="1") == ([128 + signal.SIGTERM] * 2, None)
    assert json.loads((newest(tmp_path / "work") / "state.json").read_text())["step"] == 3
    resumed = two_processes(rarely)[1]
    assert all(torch.equal(weight, resumed["best"][name]) for name, weight in whole["best"].items())
    assert resumed["val"] == whole["val"]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_stories(trained, loop_params, monkeypatch):
    monkeypatch.setattr(step, "add_gradients", lambda *arguments: [math.nan])
    with pytest.raises(UserError, match=r"step 1: loss nan.*stories story-\d.*lower train.learning_rate"):
        trained(loop_params)


def test_no_limit_on_the_gradient_is_one_that_is_never_reached(trained, loop_params, tmp_path):
    def run(limit):
        return trained(loop_params.model_copy(update={"max_gradient_norm": limit}), tmp_path / str(limit))

    free = run(None)
    assert_same(free, run(1e9))
    norms = [row["gradient_norm"] for row in free.state.train]
    tight = run(min(norms) / 2)
    assert norms[0] > 0 and not torch.equal(*(next(iter(one.best.values())) for one in (free, tight)))


def test_a_stop_signal_ends_after_a_saved_step_with_its_own_status(
    trained, loop_params, tmp_path, monkeypatch
):
    take = step.take

    def signalled(run, items, steps):
        if run.state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        take(run, items, steps)

    whole = trained(loop_params, tmp_path / "whole")
    rarely = loop_params.model_copy(update={"checkpoint_every": 100})
    monkeypatch.setattr(step, "take", signalled)
    with pytest.raises(SystemExit) as stopped:
        trained(rarely, tmp_path / "stopped")
    assert stopped.value.code == 128 + signal.SIGTERM
    assert json.loads((newest(tmp_path / "stopped") / "state.json").read_text())["step"] == 3
    monkeypatch.setattr(step, "take", take)
    assert_same(whole, trained(rarely, tmp_path / "stopped"))
    assert signal.getsignal(signal.SIGTERM) is not None


def test_patience_ends_a_run_that_no_longer_improves(trained, loop_params, monkeypatch):
    losses = iter([5.0, 4.0, 4.5, 4.1, 3.0])
    monkeypatch.setattr(step, "measured", lambda *_, **__: {"loss": next(losses)})
    run = trained(loop_params.model_copy(update={"patience": 2, "epochs": 20}))
    assert [row["loss"] for row in run.state.val] == [5.0, 4.0, 4.5, 4.1]
    assert (run.state.best_step, run.state.best_loss, run.state.step) == (2, 4.0, 6)


def test_without_validation_the_last_adapter_is_kept(loop_params, model_params, lora, encoded, tmp_path):
    model = attach(load_base(model_params), lora, seed=1)
    plan = [singly(step) for step in batches(encoded, loop_params)]
    run = train(model, plan, [], model_params, loop_params, work=tmp_path, log=lambda *_: None)
    assert run.state.best_step == run.state.step == 6 and run.state.val == []
    last = adapter_weights(run.model)
    assert all(torch.equal(run.best[name], last[name]) for name in last)


def test_every_story_is_read_once_an_epoch_in_an_order_of_its_own(encoded, loop_params):
    plan = batches(encoded, loop_params)
    assert (len(plan), len(plan)) == steps(len(encoded), loop_params)
    ids = [row.id for batch in plan for row in batch]
    assert sorted(ids[:9]) == sorted(ids[9:]) == sorted(row.id for row in encoded)
    assert ids[:9] != ids[9:]
    assert batches(encoded[::-1], loop_params) == plan
    assert batches(encoded, loop_params.model_copy(update={"seed": 4})) != plan
    assert batches(encoded, loop_params.model_copy(update={"max_steps": 2})) == plan[:2]


def test_the_rate_warms_up_peaks_and_falls_to_nothing(loop_params):
    params = loop_params.model_copy(update={"warmup_share": 0.1})
    rates = [learning_rate(step, 100, params) for step in range(100)]
    assert rates[:10] == sorted(rates[:10]) and rates[0] == pytest.approx(1e-2 / 11)
    assert max(rates) == rates[10] == 1e-2
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[99] < 1e-5
    linear = params.model_copy(update={"schedule": "linear"})
    assert learning_rate(55, 100, linear) == pytest.approx(5e-3)
    constant = params.model_copy(update={"schedule": "constant"})
    assert learning_rate(99, 100, constant) == 1e-2


@pytest.mark.parametrize(("every", "again"), [(True, [0, 1, 2]), (1, [0, 1, 2]), (2, [0, 2]), (9, [0])])
def test_layers_that_are_computed_again_do_not_change_a_bit_of_the_gradient(
    loop_params, lora, encoded, accelerator, every, again
):
    """With dropout: the same noise is drawn again."""
    torch.manual_seed(0)
    base = tiny.llama(512, num_hidden_layers=3).requires_grad_(False)
    head(base)  # as when it is loaded: it draws at random, once
    tuned = attach(base, lora.model_copy(update={"dropout": 0.3}), seed=1).train()

    def found():
        torch.manual_seed(2)
        tuned.zero_grad()
        gradients(tuned, singly(encoded), sft, 300, accelerator)
        return [w.grad.clone() for w in tuned.parameters() if w.requires_grad]

    plain = found()
    ready(lambda: tuned, loop_params.model_copy(update={"gradient_checkpointing": every}))
    assert [n for n, layer in enumerate(base.model.layers) if layer.gradient_checkpointing] == again
    assert all(map(torch.equal, plain, found()))


def test_without_pefts_casts_a_gradient_in_bfloat16_has_the_same_bits(
    model_params, lora, loop_params, encoded
):
    tuned = attach(load_base(model_params.model_copy(update={"precision": "bf16"})), lora, seed=1).train()
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    found = []
    for _ in range(2):
        tuned.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = reply_nll(tuned, collate(encoded, "cpu")).sum()
        loss.backward()
        found.append([w.grad.clone() for w in tuned.parameters() if w.requires_grad])
        ready(lambda: tuned, loop_params)
    assert not any(part.cast_input_dtype_enabled for part in tuned.modules() if hasattr(part, "lora_A"))
    assert all(map(torch.equal, *found)) and all(gradient.any() for gradient in found[0])


def test_stories_do_not_see_each_other(tuned, encoded, accelerator):
    """A neighbour of the same length is exchanged: the first story's loss must not move at all."""
    from storyforge.model.likelihood import story_nll

    neighbour = replace(encoded[1], ids=tuple(reversed(encoded[1].ids)))
    one = story_nll(tuned, [encoded[0], encoded[1]])
    other = story_nll(tuned, [encoded[0], neighbour])
    assert one[0] == other[0] and one[1] != other[1]
