import importlib.metadata
import json
import math
import shutil
import sys
from types import SimpleNamespace

import accelerate
import pytest
import torch
from hub import Hub, isolate
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from tiny import LOOP
from wandb_runs import offline_runs

from storyforge.core.errors import UserError
from storyforge.core.files import write_jsonl
from storyforge.core.launch import launch
from storyforge.core.origins import Origin
from storyforge.model import device, loading
from storyforge.model.encoding import Encoder
from storyforge.train import job, keys, stage, step

TRAIN = {
    **LOOP,
    "micro_batch_tokens": 300,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "checkpoint_every": 1,
    "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"},
}


@pytest.fixture
def workspace(tmp_path, monkeypatch, exchanges, model_params):
    """A folder with params.yaml and processed stories; returns a function that runs the stage there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORYFORGE_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    write_jsonl(tmp_path / "processed" / "train.jsonl", exchanges[2:])
    write_jsonl(tmp_path / "processed" / "val.jsonl", exchanges[:2])

    def run(wandb=False, precision="fp32", origin=model_params.origin, **changes):
        params = {
            "model": model_params.model_dump(mode="json") | {"precision": precision, "origin": str(origin)},
            "train": {**TRAIN, **changes},
            "tracking": {"wandb": wandb},
        }
        YAML().dump(params, tmp_path / "params.yaml")
        (tmp_path / "models").mkdir(exist_ok=True)
        names = ("models/tuned", "train.json", "train.tsv", "val.tsv")
        return stage.main(tmp_path / "processed", *(tmp_path / name for name in names))

    run.folder = tmp_path
    return run


def outputs(folder):
    files = [
        *sorted((folder / "models/tuned").iterdir()),
        *(folder / n for n in ("train.json", "train.tsv", "val.tsv")),
    ]
    return {file.name: file.read_bytes() for file in files}


def test_the_stage_writes_an_adapter_its_metrics_and_its_curves(workspace):
    figures = workspace()
    found = outputs(workspace.folder)
    assert list(found)[:2] == ["adapter_config.json", "adapter_model.safetensors"]
    report, compared = json.loads(found["training.json"]), json.loads(found["train.json"])
    assert compared.keys() == {"steps", "stories", "tokens", "validation"}
    assert compared["validation"].keys() == {"base_loss", "best_loss"}
    assert report | compared == report | {"validation": compared["validation"]}
    assert report["steps"] == 6 and report["stories"] == 14
    assert report["validation"]["best_loss"] < report["validation"]["base_loss"]
    weights = load_file(workspace.folder / "models/tuned/adapter_model.safetensors")
    assert report["trainable_parameters"] == sum(weight.numel() for weight in weights.values())
    assert found["train.tsv"].decode().splitlines()[0] == "step\tloss\tlearning_rate\tgradient_norm"
    assert len(found["train.tsv"].decode().splitlines()) == 7
    assert [line.split("\t")[0] for line in found["val.tsv"].decode().splitlines()] == [
        "step",
        "0",
        "2",
        "4",
        "6",
    ]
    assert figures["tokens_per_second"] > 0 and figures["machine"]["device"] == "cpu"
    assert "machine" not in report | compared  # or it would differ by machine where no bit of the result does


def test_steps_and_stories_that_do_not_fit_are_told_before_training(workspace, capsys):
    workspace()
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "7 stories, 2 epochs: 6 steps of 3",
        "about 1 min for the steps to come, validations aside",
    ]
    workspace(patience=9)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "at most about 1 min for the steps to come, validations aside: it may end earlier"
    ]
    workspace(max_tokens=100, max_steps=3)
    said = (
        "7 stories, 2 epochs: 3 of 6 steps of 3, as train.max_steps asks; "
        "6 stories are cut at train.max_tokens = 100"
    )
    assert capsys.readouterr().out.splitlines() == [said]


def test_what_is_left_out_of_the_models_own_chat_format_is_told(workspace, remarking, capsys):
    remarking(stage)
    workspace(max_steps=1)
    assert capsys.readouterr().out.startswith("thinking is off\n7 stories, ")


def test_a_recipe_for_a_gpu_does_not_start_on_a_cpu(workspace, monkeypatch, capsys):
    """Before anything is fetched or read."""
    monkeypatch.setattr("storyforge.model.bases.content", lambda *_: pytest.fail("asked for the base"))
    monkeypatch.setattr("storyforge.model.device.device", lambda: torch.device("cpu"))
    with pytest.raises(UserError, match="model.precision = fp16 is for an NVIDIA GPU"):
        workspace(precision="fp16")


@pytest.fixture
def hub(tiny_model_dir, tmp_path, monkeypatch):
    """The tiny model at a stand-in for the hub."""
    isolate(monkeypatch, tmp_path / "cache")
    files = {path.name: path.read_bytes() for path in tiny_model_dir.iterdir()}
    with Hub(files, name="tests/tiny-llama").running() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def fetched(hub):
    return [name for name, _ in hub.requests]


def test_weights_are_fetched_after_tokenizer_and_text_were_checked(workspace, hub):
    with pytest.raises(UserError, match="train.max_tokens = 20 leaves no room"):
        workspace(origin=hub.origin, max_tokens=20)
    assert "tokenizer.json" in fetched(hub) and "model.safetensors" not in fetched(hub)
    workspace(origin=hub.origin, max_steps=1)
    assert fetched(hub)[-1] == "model.safetensors"
    assert len(fetched(hub)) == len(set(fetched(hub)))


def test_what_varies_between_runs_is_in_no_output(workspace):
    workspace()
    first = outputs(workspace.folder)
    shutil.rmtree(workspace.folder / "models")
    workspace()
    assert outputs(workspace.folder) == first


@pytest.mark.parametrize(("resolved", "lines"), [("fp32", 1), ("bf16", 0)])
def test_a_processor_without_bfloat16_is_told_of_once(workspace, monkeypatch, capsys, resolved, lines):
    monkeypatch.setattr(job, "precision", lambda params: resolved)
    for module in (device, loading):  # on any machine: a process has one precision
        monkeypatch.setattr(module, "precision", lambda params: "fp32")
    workspace(precision="auto")
    assert capsys.readouterr().err.count("kernels for this base: float32 with transformers") == lines


def test_no_work_is_left_behind_after_success(workspace):
    workspace()
    assert list((workspace.folder / "checkpoints").iterdir()) == []
    assert [path.name for path in (workspace.folder / "models").iterdir()] == ["tuned"]


def test_a_crashed_run_is_resumed_but_never_by_other_params(workspace, monkeypatch, capsys):
    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(stage, "save_adapter", crash)
        workspace()
    workspace(learning_rate=0.02, seed=4)
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("starts anew:")]
    assert line.endswith(
        "/step-00000006, with another params.train.learning_rate 0.01 → 0.02, params.train.seed 3 → 4"
    )
    assert "resumed from" not in said
    monkeypatch.setattr(Encoder, "exchange", lambda *_, **__: pytest.fail("the tokens are there"))
    workspace()
    said = capsys.readouterr().out
    assert "resumed from step 6" in said and "starts anew" not in said


def test_a_package_that_computes_nothing_leaves_an_interrupted_run_its_checkpoints(
    workspace, monkeypatch, capsys
):
    """A new version of one that does is another run, and said so."""

    def crash(*_):
        raise RuntimeError("crash")

    def install(name, version):
        there = [found for found in importlib.metadata.distributions() if found.name != name]
        there.append(SimpleNamespace(name=name, version=version))
        monkeypatch.setattr(keys, "distributions", lambda: there)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(stage, "save_adapter", crash)
        workspace()
    install("accelerate", "9.0")
    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(stage, "save_adapter", crash)
        workspace()
    said = capsys.readouterr().out
    assert f'with another packages.accelerate "{accelerate.__version__}" → "9.0"\n' in said
    monkeypatch.undo()
    monkeypatch.chdir(workspace.folder)
    monkeypatch.setenv("STORYFORGE_CHECKPOINT_DIR", str(workspace.folder / "checkpoints"))
    install("some-server", "1.0")
    workspace()
    assert "resumed from step 6" in capsys.readouterr().out


def crash(*_):
    raise RuntimeError("crash")


def test_another_base_of_the_same_name_is_another_run(workspace, monkeypatch, capsys, tiny_model_dir):
    """Exchanged between a kill and the next start: no adapter of two bases."""
    base = workspace.folder / "base"
    shutil.copytree(tiny_model_dir, base)
    origin = Origin.parse(f"folder:{base}")
    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(stage, "save_adapter", crash)
        workspace(origin=origin)
    weights = load_file(base / "model.safetensors")
    save_file(
        {name: weight * 1.5 for name, weight in weights.items()}, base / "model.safetensors", {"format": "pt"}
    )
    workspace(origin=origin)
    assert "resumed" not in capsys.readouterr().out
    told = workspace.folder / "models/tuned/training.json"
    exchanged = json.loads(told.read_bytes())["base_sha256"]
    shutil.rmtree(base)
    shutil.copytree(tiny_model_dir, base)
    workspace(origin=origin)
    assert "resumed from step 6" in capsys.readouterr().out
    assert (
        json.loads((workspace.folder / "models/tuned/training.json").read_bytes())["base_sha256"] != exchanged
    )


def test_a_base_that_is_exchanged_while_the_stage_runs_is_noticed(workspace, monkeypatch):
    base = iter(["before", "after"])
    monkeypatch.setattr(keys, "base_digest", lambda _: next(base))
    with pytest.raises(UserError, match="base of this stage changed while it ran"):
        workspace()
    assert not (workspace.folder / "models/tuned").exists()


def test_a_run_begun_with_the_kernels_does_not_start_over_without_them(workspace, monkeypatch):
    def machine(kernels):
        monkeypatch.setattr(keys, "machine_class", lambda _: {"device": "cpu", "kernels": kernels})

    monkeypatch.setattr(job.kernels, "kept", lambda: {"another", "fast"})
    machine("fast")
    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(stage, "save_adapter", crash)
        workspace()
    machine(None)
    with pytest.raises(UserError, match="made with the compiled kernels, which cannot be used now") as caught:
        workspace()
    assert "\n" not in str(caught.value)
    workspace(learning_rate=0.02)  # what was not begun with them runs without


@pytest.mark.parametrize("same_bits", [False, True])
def test_another_number_of_processes_is_another_run_unless_its_bits_may_differ(
    workspace, monkeypatch, capsys, same_bits
):
    """Told of two processes, where there is one: how many there really are stands in the checkpoint."""

    def processes(**told):
        machine = {"device": "cpu", "kernels": None, "threads": 1}
        monkeypatch.setattr(keys, "machine_class", lambda _: machine | told)

    processes(processes=2)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError):
        patched.setattr(stage, "save_adapter", crash)
        workspace(same_bits=same_bits)
    (state,) = workspace.folder.glob("checkpoints/*/step-00000006/state.json")
    kept = json.loads(state.read_text())
    assert kept["processes"] == {"1": 1}
    capsys.readouterr()
    processes()
    figures = workspace(same_bits=same_bits)
    said = capsys.readouterr().out
    assert ("resumed from step 6" in said) != same_bits
    assert ("machine.processes 2 → absent" in said) == same_bits
    assert "processes" not in figures["machine"]


def test_full_memory_halves_what_goes_through_at_once_and_nothing_else(workspace, monkeypatch, capsys):
    """What a whole run with half the budget gives; the machine class says which it was."""
    assert cut(workspace(micro_batch_tokens=400, checkpoint_every=3)) == {"1": 400}
    half, real, full = outputs(workspace.folder), step.add_gradients, iter([False, True])
    shutil.rmtree(workspace.folder / "models")

    def gradients(*arguments):
        if next(full, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)

    monkeypatch.setattr(step, "add_gradients", gradients)
    figures = workspace(micro_batch_tokens=800, checkpoint_every=3)
    assert cut(figures) == {"1": 400} and outputs(workspace.folder) == half
    assert "out of memory with 800 tokens at once" in capsys.readouterr().out


def test_a_run_that_was_cut_finer_halfway_is_of_another_machine_class(workspace, monkeypatch):
    """Its bits are those of neither budget: the class names the step from which memory was short."""
    whole = cut(workspace(micro_batch_tokens=800))
    shutil.rmtree(workspace.folder / "models")
    real, calls = step.take, []

    def take(run, items, steps):
        calls.append(run.state.step)
        if run.state.step == 4 and calls.count(4) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        real(run, items, steps)

    monkeypatch.setattr(step, "take", take)
    assert (whole, cut(workspace(micro_batch_tokens=800))) == ({"1": 800}, {"1": 800, "5": 400})


def cut(figures):
    return figures["machine"]["micro_batch_tokens"]


def test_memory_too_small_for_one_story_is_an_error_and_leaves_nothing_half_written(workspace, monkeypatch):
    def gradients(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step, "add_gradients", gradients)
    with pytest.raises(UserError, match="gradient_checkpointing"):
        workspace()
    assert list((workspace.folder / "models").iterdir()) == []


def test_code_that_changes_under_a_run_is_not_recorded_as_its_code(workspace, monkeypatch):
    code = iter([{"a.py": "before"}, {"a.py": "after"}])
    monkeypatch.setattr(keys, "hashes", lambda *_: next(code))
    with pytest.raises(UserError, match="changed while it ran"):
        workspace()
    assert not (workspace.folder / "models/tuned").exists()


def test_no_training_stories_is_an_error_that_says_where_to_look(workspace):
    write_jsonl(workspace.folder / "processed" / "train.jsonl", [])
    with pytest.raises(UserError, match="train.jsonl is empty"):
        workspace()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"learning_rat": 1}, "params.yaml: train.learning_rat is not a known key"),
        ({"learning_rate": "fast"}, "params.yaml: train.learning_rate = 'fast': "),
        ({"learning_rate": -1}, "params.yaml: train.learning_rate = -1: "),
        ({"schedule": "cosin"}, "params.yaml: train.schedule = 'cosin': .*'constant', 'linear' or 'cosine'"),
        (
            {"lora": {"r": 0, "alpha": 8, "dropout": 0, "targets": "all-linear"}},
            "params.yaml: train.lora.r = 0: ",
        ),
        ({"learning_rate": math.inf}, "params.yaml: train.learning_rate = inf: .*finite"),
        ({"max_gradient_norm": math.inf}, "params.yaml: train.max_gradient_norm = inf: .*finite"),
        ({"same_bits": "mostly"}, "params.yaml: train.same_bits = 'mostly': .*boolean"),
        ({"warmup_share": math.nan}, "params.yaml: train.warmup_share = nan: .*finite"),
    ],
)
def test_a_wrong_param_is_named_with_its_value_and_what_is_allowed(workspace, changes, message):
    with pytest.raises(UserError, match=message):
        workspace(**changes)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "model.embed_tokens", "q_porj"])
def test_a_target_that_would_not_be_trained_is_named(workspace, target):
    """The loss takes head and embedding for frozen; PEFT passes over a name that no layer has."""
    lora = {"r": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", target]}
    with pytest.raises(UserError, match=f"^params.yaml: train.lora.targets: '{target}' is not a linear"):
        workspace(lora=lora)


def test_targets_by_name_are_trained_and_counted(workspace):
    workspace(lora={"r": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "layers.1.mlp.up_proj"]})
    found = json.loads(outputs(workspace.folder)["training.json"])
    assert found["trainable_parameters"] == 4 * (2 * (64 + 64) + (64 + 96))


def test_a_users_mistake_is_one_line_and_status_1(workspace, monkeypatch, capsys):
    workspace_files = [
        str(workspace.folder / name) for name in ("gone", "models/tuned", "a", "b", "c", "timing.json")
    ]
    YAML().dump({"model": {}}, workspace.folder / "params.yaml")
    monkeypatch.setattr(sys, "argv", ["train", *workspace_files])
    with pytest.raises(SystemExit) as ended:
        launch(stage.main)
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: params.yaml: model.name is missing") and error.count("\n") == 1


def test_wandb_writes_an_offline_run_that_holds_the_losses_and_no_secret(workspace, nobody, monkeypatch):
    """Read back from the file that `wandb sync` would upload."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    workspace(wandb=True)
    (run,) = offline_runs(nobody)
    assert run["config"]["model"]["name"] == "tests/tiny-llama" and run["config"]["train"]["seed"] == 3
    steps = [row for row in run["history"] if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 7))
    assert all(row["tokens_per_second"] > 0 and row["learning_rate"] > 0 for row in steps)
    assert {"gradient_norm", "loss"} <= set(steps[0])
    assert [row["step"] for row in run["history"] if "val_loss" in row] == [0, 2, 4, 6]
    assert b"hf_secret" not in run["file"].read_bytes()
