"""Memory that runs out costs time, not a result: the same batches, and the state of the last checkpoint."""

import json
import os
import signal
from dataclasses import asdict, replace

import pytest
import torch
from accelerate import Accelerator

from storyforge.core.errors import UserError
from storyforge.model.encoding import singly
from storyforge.model.memory import out_of_memory
from storyforge.train import loop, memory, rehearsal, stage
from storyforge.train import step as step_module
from storyforge.train.loop import train
from storyforge.train.memory import NOTE
from storyforge.train.params import TrainParams
from storyforge.train.rehearsal import heaviest, rehearse
from storyforge.train.schedule import batches
from storyforge.train.stage import fresh_model

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
CPU = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8589934592 bytes")


@pytest.fixture
def params(loop_params, lora):
    """Six steps of six stories or one; dropout, since its noise must resume too."""
    changes = {"batch_stories": 6, "micro_batch_tokens": 600, "checkpoint_every": 2, "epochs": 3}
    changes |= {"lora": lora.model_copy(update={"dropout": 0.3})}
    return TrainParams(**loop_params.model_dump() | changes)


@pytest.fixture
def run(encoded, model_params, params, tmp_path):
    """Trains in a work directory, begun there or gone on with."""

    def go(folder="work", **changes):
        work, chosen = tmp_path / folder, params.model_copy(update=changes)
        work.mkdir(exist_ok=True)
        model = fresh_model(model_params, chosen)
        plan, val = [singly(rows) for rows in batches(encoded[2:], chosen)], singly(encoded[:2])
        return train(model, plan, val, model_params, chosen, work=work, log=lambda *_: None)

    return go


@pytest.fixture
def hurt(monkeypatch):
    """Harm befalls that step in its middle, some gradients made, with more tokens at once than `most`."""

    def install(step, most, harm):
        real_step, real_gradients, now = step_module.take, step_module.add_gradients, {}

        def watched(run, items, steps):
            now.update(step=run.state.step, budget=run.params.micro_batch_tokens)
            real_step(run, items, steps)

        def gradients(*arguments):
            nll = real_gradients(*arguments)
            if now["step"] == step and now["budget"] > most:
                harm()
            return nll

        monkeypatch.setattr(step_module, "take", watched)
        monkeypatch.setattr(step_module, "add_gradients", gradients)

    return install


def raises(error):
    def harm():
        raise error

    return harm


def same(one, other):
    weights = one.best.keys() == other.best.keys()
    weights = weights and all(torch.equal(one.best[name], other.best[name]) for name in one.best)
    return weights and asdict(one.state) == asdict(other.state)


def test_out_of_memory_before_any_checkpoint_is_the_run_with_half_the_budget(run, hurt, capsys):
    half, whole = run("half", micro_batch_tokens=300), run("whole")
    assert not same(half, whole)  # else this test could not tell one from the other
    hurt(step=1, most=300, harm=raises(CUDA))
    again = run()
    assert same(again, half) and again.params.micro_batch_tokens == 300
    said = "out of memory with 600 tokens at once: going on from the last checkpoint with 300"
    assert capsys.readouterr().out.count(said) == 1


@pytest.mark.parametrize("error", [CUDA, CPU, MemoryError()], ids=["cuda", "cpu", "python"])
def test_out_of_memory_later_goes_on_from_the_checkpoint_with_half_the_budget(
    run, hurt, error, monkeypatch, tmp_path
):
    """Against a run that ended at that checkpoint, of step 2, and was gone on with at half the budget."""
    with monkeypatch.context() as patched:
        patched.setattr(loop, "_finished", lambda run, plan: run.state.step == 2)
        run("told")
    (tmp_path / "told" / NOTE).write_text('{"micro_batch_tokens": 300}')
    told = run("told")
    hurt(step=3, most=300, harm=raises(error))
    found = run()
    assert same(found, told)
    assert [row["step"] for row in found.state.train] == [1, 2, 3, 4, 5, 6]
    assert found.state.stories == 3 * 7  # every story of every epoch once: the batches did not change


def test_a_resumed_run_keeps_the_budget_it_was_halved_to(run, hurt, tmp_path):
    hurt(step=1, most=300, harm=raises(CUDA))
    run()
    assert run().params.micro_batch_tokens == 300
    note = json.loads((tmp_path / "work" / NOTE).read_text())
    assert note["micro_batch_tokens"] == 300 and note["running_since"] is None


def test_a_story_too_large_alone_is_an_error_that_names_what_helps(run, hurt):
    hurt(step=0, most=0, harm=raises(CUDA))
    with pytest.raises(UserError, match="story or pair of .* train.gradient_checkpointing.*train.max_tokens"):
        run(micro_batch_tokens=1000)


def test_another_error_is_not_taken_for_missing_memory(run, hurt):
    hurt(step=0, most=0, harm=raises(RuntimeError("shapes do not match")))
    with pytest.raises(RuntimeError, match="shapes"):
        run()
    assert not out_of_memory(ValueError("out of memory"))


def test_one_of_several_processes_notes_half_the_budget_and_ends(run, hurt, monkeypatch, tmp_path):
    """The others wait for its gradient, so that it cannot begin again alone."""
    hurt(step=1, most=300, harm=raises(CUDA))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(loop, "accelerator", lambda _: Accelerator(cpu=True))  # begun before: knows of one
    with pytest.raises(UserError, match="one of several processes: run the same command again"):
        run()
    assert json.loads((tmp_path / "work" / NOTE).read_text())["micro_batch_tokens"] == 300


@pytest.fixture
def killed(run, hurt, monkeypatch):
    """Runs in a child that gets kill -9 in that step; where it `counts`, Linux killed for memory."""
    kills = {"cgroup": 5, "machine": 7}
    monkeypatch.setattr(memory, "_kernel_kills", lambda: dict(kills))

    def go(step, counts=True):
        with monkeypatch.context():
            child = os.fork()
            if child == 0:
                hurt(step, 0, harm=lambda: os.kill(os.getpid(), signal.SIGKILL))
                run()
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        kills["cgroup"] += counts
        kills["machine"] += 1  # that of another container counts for the machine alone

    go.kills = kills
    return go


def test_killed_for_memory_twice_at_the_same_checkpoint_halves_the_budget(run, killed, capsys):
    killed(step=3)
    killed(step=2)
    assert run().params.micro_batch_tokens == 300
    assert "killed for memory 2 times at step 2 with 600 tokens at once" in capsys.readouterr().out


def test_a_new_container_after_each_kill_is_counted_by_the_machines_kills(run, killed, monkeypatch):
    """Its cgroup counts from 0 again, so that nothing of the kill before stands there."""
    now = [{"first": 5, "machine": 7}, {"second": 0, "machine": 8}, {"third": 0, "machine": 9}]
    monkeypatch.setattr(memory, "_kernel_kills", lambda: now[0])
    for step in (3, 2):
        killed(step)
        now.pop(0)
    assert run().params.micro_batch_tokens == 300


@pytest.fixture
def system(tmp_path):
    """The files of /proc and /sys that tell of a cgroup and its limit, and of kills in it and around it."""

    def write(cgroup, **files):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(cgroup)
        (tmp_path / "proc/vmstat").write_text("pgfault 12\noom_kill 9\n")
        for name, text in files.items():
            (tmp_path / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "sys/fs/cgroup" / name).write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("cgroup", "files", "kills"),
    [
        (
            "0::/a/b\n",
            {"a/b/memory.events": "oom 4\noom_kill 3\n", "a/memory.events": "oom_kill 5\n"},
            [3, 9],
        ),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.oom_control": "under_oom 0\noom_kill 2\n"}, [2, 9]),
        ("0::/\n", {"cgroup.procs": ""}, [9]),
        ("", {}, [9]),
    ],
    ids=["nested v2", "v1", "no count", "none"],
)
def test_kills_are_counted_in_the_processs_own_cgroup_first(system, cgroup, files, kills):
    assert list(memory._kernel_kills(system(cgroup, **files)).values()) == kills


@pytest.mark.parametrize(
    "kills",
    [[(3, True)], [(3, False)] * 3, [(1, True), (3, True)], [(3, True), (3, False)]],
    ids=["once", "for other reasons", "at other checkpoints", "once and otherwise"],
)
def test_other_kills_leave_budget_and_bits_as_they_were(run, killed, kills):
    whole = run("whole")
    for step, counts in kills:
        killed(step, counts)
    found = run()
    assert same(found, whole) and found.params.micro_batch_tokens == 600


def test_a_damaged_note_is_as_none(run, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / NOTE).write_bytes(b"{")
    assert run().params.micro_batch_tokens == 600


def test_a_base_that_does_not_fit_is_an_error_that_names_what_helps(run, monkeypatch):
    monkeypatch.setattr(stage, "load_base", lambda _: raises(CUDA)())
    with pytest.raises(UserError, match="out of memory while the base is loaded: .*model.quantization: nf4"):
        run()


def test_a_rehearsal_halves_until_the_heaviest_batches_of_the_whole_run_fit(
    encoded, model_params, params, monkeypatch
):
    def full(model, cut, scale, accelerator):
        if len(cut) * len(cut[0].ids) > 300:
            raise CPU
        return [1.0]

    monkeypatch.setattr(rehearsal, "add_gradients", full)
    costs = rehearse(encoded[2:], encoded[:2], model_params, params, steps=1)
    assert costs.micro_batch_tokens == 300 and costs.token_s > 0
    monkeypatch.setattr(rehearsal, "add_gradients", lambda *_: raises(CPU)())
    with pytest.raises(UserError, match="does not fit into memory: lower train.max_tokens"):
        rehearse(encoded[2:], [], model_params, params, steps=1)


def test_the_heaviest_batches_are_the_fullest_and_that_of_the_longest_stories(encoded):
    def story(length):
        return replace(encoded[0], id=f"{length}", ids=(1,) * length, reply_start=1)

    cuts = [[story(90)], [story(50), story(49)], [story(10)], [story(60)], [story(59)]]
    found = heaviest(cuts)
    assert [[len(row.ids) for row in cut] for cut in found] == [[90], [50, 49]]
