import json
import math
import os
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from storyforge.align import guards, stage
from storyforge.core.errors import UserError
from storyforge.core.files import write_json, write_jsonl
from storyforge.model import bases, loading
from storyforge.train import step


def outputs(folder):
    files = [*sorted((folder / "models/aligned").iterdir()), folder / "align.json", folder / "align.tsv"]
    return {file.name: file.read_bytes() for file in files}


def told(workspace):
    return json.loads((workspace.folder / "models/aligned/training.json").read_bytes())


def adapter(folder, name):
    return load_file(folder / "models" / name / "adapter_model.safetensors")


def test_the_better_texts_win_on_pairs_that_were_held_out(workspace, capsys):
    workspace()
    found = told(workspace)
    assert capsys.readouterr().out.startswith("7 pairs, 2 epochs: 6 steps of 3; 3 more held out\n")
    assert (found["steps"], found["pairs"], found["held_out"], found["stopped"]) == (6, 7, 3, None)
    assert found["stories"] == 2 * 2 * 7
    first, *_, last = found["validations"]
    assert first["step"] == 0 and last["step"] == 6
    assert last["accuracy"] == 1 and last["margin"] > 0 and last["loss"] < first["loss"]
    compared = json.loads((workspace.folder / "align.json").read_bytes())
    assert found == found | compared
    assert compared["human_loss"] == {"tuned": first["human_loss"], "aligned": last["human_loss"]}
    lines = outputs(workspace.folder)["align.tsv"].decode().splitlines()
    assert lines[0].split() == [
        "step",
        "loss",
        "margin",
        "accuracy",
        "chosen_loss",
        "learning_rate",
        "gradient_norm",
    ]
    assert len(lines) == 7
    before, after = (adapter(workspace.folder, name) for name in ("tuned", "aligned"))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_loss_is_ln_2_since_it_is_compared_with_the_tuned_writer(workspace, precision, monkeypatch):
    """Compared with the base it would not be: the adapter says something."""
    monkeypatch.setattr("accelerate.state.AcceleratorState._shared_state", {})
    workspace(precision, max_steps=1)
    found = told(workspace)
    # How far the same pair measured in another batch lies off, in z: bfloat16's only.
    noise = 1e-4 if precision == "fp32" else 0.02
    assert abs(found["validations"][0]["margin"]) < noise
    assert found["validations"][0]["loss"] == pytest.approx(math.log(2), abs=noise)
    assert found["first_loss"] == pytest.approx(math.log(2), abs=noise)


@pytest.mark.parametrize(
    "objective",
    [{"kind": "simpo", "beta": 2.0, "gamma": 1.0}, {"kind": "dpo", "beta": 0.1, "nll": 0.2}],
    ids=["simpo", "dpo and nll"],
)
def test_other_objectives_train_too(workspace, objective):
    workspace(objective=objective)
    first, *_, last = told(workspace)["validations"]
    assert last["loss"] < first["loss"] and last["accuracy"] == 1


def test_supervised_training_mixes_revisions_with_their_share_of_human_stories(workspace, capsys):
    workspace(objective={"kind": "sft", "human_share": 0.5})
    found = told(workspace)
    assert (found["revisions"], found["human_stories"], found["held_out"]) == (4, 4, 2)
    assert capsys.readouterr().out.startswith("8 revisions and human stories, 2 epochs: 6 steps of 3;")
    first, *_, last = found["validations"]
    assert last["loss"] < first["loss"] and "accuracy" not in first
    assert b"held_out_accuracy" not in outputs(workspace.folder)["align.json"]


def test_two_runs_are_the_same_bytes_and_leave_no_work(workspace):
    workspace()
    first = outputs(workspace.folder)
    shutil.rmtree(workspace.folder / "models/aligned")
    workspace()
    assert outputs(workspace.folder) == first
    assert list((workspace.folder / "checkpoints").iterdir()) == []


def test_a_stopped_run_goes_on_to_the_same_bytes_compared_with_the_same_writer(workspace, monkeypatch):
    workspace()
    whole, take, sums = outputs(workspace.folder), step.take, []
    shutil.rmtree(workspace.folder / "models/aligned")

    def signalled(run, items, steps):
        sums.append(run.state.reference)
        if run.state.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        take(run, items, steps)

    monkeypatch.setattr(step, "take", signalled)
    with pytest.raises(SystemExit) as stopped:
        workspace()
    assert stopped.value.code == 128 + signal.SIGTERM and not (workspace.folder / "models/aligned").exists()
    workspace()
    assert outputs(workspace.folder) == whole
    assert len(sums) == 6 and all(one == sums[0] for one in sums) and len(sums[0]) == 10


def test_full_memory_halves_what_goes_through_at_once(workspace, monkeypatch, capsys):
    workspace(micro_batch_tokens=300)
    half, real, full = outputs(workspace.folder), step.losses, iter([True])
    shutil.rmtree(workspace.folder / "models/aligned")

    def losses(*arguments):
        if next(full, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)

    monkeypatch.setattr(step, "losses", losses)
    figures = workspace(micro_batch_tokens=600)
    assert figures["machine"]["micro_batch_tokens"] == {"1": 300} and outputs(workspace.folder) == half
    assert "out of memory with 600 tokens at once" in capsys.readouterr().out


@pytest.mark.parametrize("guard", ["max_loss_rise", "max_chosen_fall", "max_end_rise", "min_distinct_2"])
def test_a_guard_ends_the_run_keeps_the_last_good_adapter_and_is_named(workspace, guard, monkeypatch, capsys):
    """Human text by a rate that breaks the writer; the others as if they had become worse."""
    real = guards.Guards.measure
    worse = {"max_chosen_fall": ("chosen_loss", 99.0), "max_end_rise": ("end_loss", 99.0)}
    worse["min_distinct_2"] = ("distinct_2", 0.0)
    name, value = worse.get(guard, ("none", 0.0))

    def measure(self, run):
        return real(self, run) | ({name: value} if run.state.step >= 4 else {})

    monkeypatch.setattr(guards.Guards, "measure", measure)
    off = dict.fromkeys(("max_loss_rise", "max_chosen_fall", "max_end_rise", "min_distinct_2"))
    workspace(guards={**off, guard: 0.5}, learning_rate=0.002 if guard in worse else 0.5, epochs=4)
    found = told(workspace)
    assert found["stopped"] == guard
    assert found["kept_step"] == found["validations"][-2]["step"] < found["steps"] < 12
    assert (
        f"align.guards.{guard} was crossed: the adapter of step {found['kept_step']}"
        in capsys.readouterr().out
    )
    if found["kept_step"] == 0:
        assert all(
            torch.equal(weight, adapter(workspace.folder, "tuned")[name])
            for name, weight in adapter(workspace.folder, "aligned").items()
        )


def test_patience_ends_a_run_whose_held_out_pairs_no_longer_improve(workspace, monkeypatch, capsys):
    losses = iter([5.0, 4.0, 4.5, 4.1, 3.0])
    real = step.measured
    monkeypatch.setattr(step, "measured", lambda *a, **k: real(*a, **k) | {"loss": next(losses)})
    workspace(patience=2, epochs=20)
    assert "at most about" in capsys.readouterr().out
    assert [row["loss"] for row in told(workspace)["validations"]] == [5.0, 4.0, 4.5, 4.1]


def test_a_loss_that_is_not_finite_names_the_pairs_and_the_key(workspace, monkeypatch):
    monkeypatch.setattr(step, "add_gradients", lambda model, rows, *_: [math.nan] * len(rows))
    with pytest.raises(UserError, match=r"step 1: loss nan.*stories pair-\d.*lower align.learning_rate"):
        workspace()


def test_a_validation_that_is_not_finite_is_one_line_too(workspace):
    with pytest.raises(UserError, match=r"validation after step 1: .*loss nan.*lower align.learning_rate"):
        workspace(learning_rate=1e30, warmup_share=0.0, validate_every=1)
    assert not (workspace.folder / "models/aligned").exists()


def test_without_a_second_phase_it_says_so_and_writes_no_adapter(workspace):
    write_json(workspace.folder / "revised" / "report.json", {"off": True})
    assert workspace() is None
    assert [path.name for path in (workspace.folder / "models/aligned").iterdir()] == ["training.json"]
    assert told(workspace) == {"off": True}
    assert json.loads((workspace.folder / "align.json").read_bytes()) == {"steps": 0}
    assert (workspace.folder / "align.tsv").read_text() == "step\tloss\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"kind": "ppo"}}, "params.yaml: align.objective = "),
        ({"objective": {"kind": "dpo", "beta": 0, "nll": 0}}, "params.yaml: align.objective.dpo.beta = 0: "),
        (
            {"guards": {**dict.fromkeys(("max_loss_rise", "max_chosen_fall"))}},
            "align.guards.max_end_rise is missing",
        ),
        ({"max_tokens": 20}, "story pair-0: align.max_tokens = 20 leaves no room"),
    ],
)
def test_a_wrong_param_is_one_line(workspace, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        workspace(**changes)
    assert "\n" not in str(caught.value)


def test_inputs_that_cannot_be_used_are_one_line_each(workspace, pairs):
    file = workspace.folder / "revised" / "pairs.jsonl"
    write_jsonl(file, [one for one in pairs if one.meta["side"] == "train"])
    with pytest.raises(
        UserError, match="pairs.jsonl: 7 rows to train on and 0 held out: .*raise revise.prompts"
    ):
        workspace()
    write_jsonl(file, [*pairs, pairs[0]])
    with pytest.raises(UserError, match="pairs.jsonl: 1 ids stand twice"):
        workspace()
    write_jsonl(file, pairs)
    write_jsonl(workspace.folder / "processed" / "val.jsonl", [])
    with pytest.raises(UserError, match="val.jsonl is empty"):
        workspace()
    shutil.rmtree(workspace.folder / "models/tuned")
    with pytest.raises(UserError, match="adapter_config.json: No such file.*: run `dvc repro`"):
        workspace()


def test_both_texts_of_a_pair_are_read_beside_the_same_prompt(workspace, pairs):
    long = [replace(pair, prompt=pair.prompt * 9, rejected=pair.rejected * 3) for pair in pairs]
    write_jsonl(workspace.folder / "revised" / "pairs.jsonl", long)
    with pytest.raises(UserError, match=r"pair pair-0: align.max_tokens = 260 cuts .* alone: raise"):
        workspace(max_tokens=260)
    workspace(max_tokens=400)


def test_supervised_training_without_revisions_names_the_key_that_makes_some(workspace):
    write_jsonl(workspace.folder / "revised" / "sft.jsonl", [])
    with pytest.raises(UserError, match="sft.jsonl is empty: set revise.critic: model"):
        workspace(objective={"kind": "sft", "human_share": 0.5})


def test_weights_are_fetched_after_texts_and_guards_were_checked(workspace, monkeypatch):
    asked, real = [], bases.base_dir

    def base_dir(params, files=bases.FILES):
        asked.append(files)
        return real(params, files)

    def tuned_model(*_):
        raise UserError("now they are needed")

    for module in (bases, loading):
        monkeypatch.setattr(module, "base_dir", base_dir)
    monkeypatch.setattr(stage, "tuned_model", tuned_model)
    with pytest.raises(UserError, match="now they are needed"):
        workspace()
    assert set(asked) == {bases.DESCRIPTION}


def test_what_is_left_out_of_the_models_own_chat_format_is_told(workspace, remarking, capsys):
    remarking(stage)
    workspace(max_steps=1)
    assert capsys.readouterr().out.startswith("thinking is off\n7 pairs, ")


def test_params_for_a_gpu_do_not_start_on_a_cpu(workspace, monkeypatch):
    monkeypatch.setattr("storyforge.model.device.device", lambda: torch.device("cpu"))
    with pytest.raises(UserError, match="model.precision = fp16 is for an NVIDIA GPU"):
        workspace(precision="fp16")


def test_a_guard_that_has_nothing_to_measure_is_said(workspace, capsys):
    workspace(objective={"kind": "sft", "human_share": 0.5}, max_steps=1)
    line = "align.guards.max_chosen_fall: there are no pairs: it cannot end this run"
    assert line in capsys.readouterr().out.splitlines()


def test_a_tuned_adapter_that_is_exchanged_while_the_stage_runs_is_noticed(workspace, monkeypatch):
    real = stage.train

    def exchanged(*arguments, **named):
        run = real(*arguments, **named)
        (workspace.folder / "models/tuned/adapter_model.safetensors").write_bytes(b"another")
        return run

    monkeypatch.setattr(stage, "train", exchanged)
    with pytest.raises(UserError, match="changed while it ran"):
        workspace()
    assert not (workspace.folder / "models/aligned").exists()
