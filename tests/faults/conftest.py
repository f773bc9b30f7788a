"""A place where one stage is run, hurt and run again, and what it should have come to."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import rules_graph
from pipeline import TINY, Repository, stories, story
from ruamel.yaml import YAML
from warm import Fault, Warm

from storyforge.core.files import write_json, write_jsonl
from storyforge.core.records import Exchange, Pair

ROOT = Path(__file__).parents[2]
MODEL = {"sha256": None, "system": "Tell a story.", "precision": "fp32", "attention": "eager", "threads": 1}
TRAIN = {  # six steps, the last batch short; dropout, since its noise must resume too
    "epochs": 2,
    "max_steps": None,
    "batch_stories": 3,
    "max_tokens": 250,
    "micro_batch_tokens": 500,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "validate_every": 2,
    "validation_stories": None,
    "checkpoint_every": 1,
    "lora": {"r": 4, "alpha": 8, "dropout": 0.3, "targets": "all-linear"},
}
ALIGN = {  # four steps, validated in between
    "epochs": 2,
    "batch_stories": 3,
    "max_tokens": 250,
    "micro_batch_tokens": 500,
    "learning_rate": 0.002,
    "validate_every": 2,
    "checkpoint_every": 1,
}
GRAPH = rules_graph.graph(ROOT)
Outputs = dict[str, bytes]


@dataclass(frozen=True)
class Place:
    """A folder with what a stage reads, the command that runs it there, and its outputs' names."""

    warm: Warm
    folder: Path
    words: Sequence[str]
    made: Sequence[str]

    def start(self, *faults: Fault) -> int:
        env = {"STORYFORGE_CHECKPOINT_DIR": str(self.work)}
        return self.warm.start(self.words, self.folder, faults, env)

    def run(self, *faults: Fault) -> int:
        """The status it ends with."""
        return self.wait(self.start(*faults))

    def wait(self, pid: int) -> int:
        return self.warm.wait(pid)

    def killed_after(self, seconds: float) -> int:
        """The status of a run that gets kill -9 if it lasts so long."""
        pid = self.start()
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    @property
    def work(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def said(self) -> str:
        return (self.folder / "log").read_text()

    def checkpoints(self) -> list[Path]:
        """By step."""
        return sorted(self.work.glob("[!.]*/step-*"))

    def torn(self, whole: Outputs) -> list[str]:
        """Outputs that stand there and are not what they should be."""
        return [name for name, content in self.outputs().items() if content != whole.get(name)]

    def outputs(self) -> Outputs:
        """Every file that DVC would take."""
        tops = [self.folder / name for name in self.made]
        files = [file for top in tops for file in (sorted(top.rglob("*")) if top.is_dir() else [top])]
        return {str(file.relative_to(self.folder)): file.read_bytes() for file in files if file.is_file()}

    def clear(self) -> None:
        """As DVC does before a stage: its outputs are deleted."""
        for name in self.made:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).unlink(missing_ok=True)

    def choose(self, **changes) -> "Place":
        """Other params for training."""
        params = YAML(typ="safe").load(self.folder / "params.yaml")
        YAML().dump(params | {"train": params["train"] | changes}, self.folder / "params.yaml")
        return self

    def copy(self, folder: Path) -> "Place":
        shutil.copytree(self.folder, folder)
        (folder / "log").write_text("")
        return replace(self, folder=folder)


def place(warm: Warm, folder: Path, stage: str) -> Place:
    """With the command and the outputs that dvc.yaml names."""
    words = GRAPH[stage]["cmd"].removeprefix(rules_graph.START).split()
    made = sorted(rules_graph.declared(GRAPH[stage], "outs", "metrics", "plots"))
    return Place(warm, folder, [stage, *words[1:]], made)


@pytest.fixture(scope="session")
def template(warm, tmp_path_factory, tiny_model_dir) -> Place:
    """Seven short stories to train on, two to validate with. Shared: copy it, never change it."""
    folder = tmp_path_factory.mktemp("template")
    rows = [
        Exchange(f"{n}", "made", f"{n}", f"Tell of {n} birds.", short_story(n), n % 2 == 0) for n in range(9)
    ]
    write_jsonl(folder / "data" / "processed" / "train.jsonl", rows[2:])
    write_jsonl(folder / "data" / "processed" / "val.jsonl", rows[:2])
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    model = params["model"] | MODEL | {"origin": f"folder:{tiny_model_dir}"}
    changed = {"model": model, "train": params["train"] | TRAIN, "align": params["align"] | ALIGN}
    YAML().dump(params | changed, folder / "params.yaml")
    return place(warm, folder, "train")


def short_story(number: int) -> str:
    return "\n".join(story(random.Random(number)).splitlines()[: number % 3 + 1])


NAMES = ["Abelard", "Bertrand", "Columba", "Drusilla", "Eustace", "Florian", "Griselda", "Hortense"]


@pytest.fixture(scope="session")
def judging(warm, tmp_path_factory, tiny_model_dir) -> Place:
    """Two adapters, and held-out stories of people whom their prompts name. Shared: copy, never change."""
    folder = tmp_path_factory.mktemp("judging")
    told = {name: f"{name} came. {name} saw. {story(random.Random(name))}" for name in NAMES}
    rows = [Exchange(name, "made", name, f"Tell of {name}.", text, True) for name, text in told.items()]
    write_jsonl(folder / "data" / "processed" / "test.jsonl", rows)
    write_jsonl(folder / "data" / "processed" / "train.jsonl", rows)
    shutil.copy(ROOT / "data" / "constitution.yaml", folder / "data")
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    model = params["model"] | MODEL | {"origin": f"folder:{tiny_model_dir}"}
    few = {"prompts": 6, "samples": 6, "max_new_tokens": 12, "gate_pairs": 10}
    YAML().dump(params | {"model": model, "judge": params["judge"] | few}, folder / "params.yaml")
    adapters(folder)
    return place(warm, folder, "judge")


def adapters(folder: Path) -> None:
    """LoRA's B starts at zero: here it holds noise, so that both writers differ from the base."""
    import torch

    from storyforge.model.loading import (
        LoraParams,
        ModelParams,
        adapter_weights,
        attach,
        load_base,
        save_adapter,
    )

    params = ModelParams.load(folder / "params.yaml")
    model = attach(load_base(params), LoraParams(r=4, alpha=8, dropout=0.0, targets="all-linear"), seed=1)
    for seed, name in enumerate(("tuned", "aligned")):
        draw = torch.Generator().manual_seed(seed)
        weights = {
            key: torch.randn(weight.shape, generator=draw) * 0.05 if "lora_B" in key else weight
            for key, weight in adapter_weights(model).items()
        }
        save_adapter(folder / "models" / name, model, weights, params)


@pytest.fixture
def training(template, tmp_path) -> Place:
    return template.copy(tmp_path / "here")


@pytest.fixture(scope="session")
def whole(template, tmp_path_factory) -> Outputs:
    """What an undisturbed run of it gives."""
    undisturbed = template.copy(tmp_path_factory.mktemp("whole") / "here")
    assert undisturbed.run() == 0, undisturbed.said
    return undisturbed.outputs()


@pytest.fixture(scope="session")
def aligning(warm, template, whole, tmp_path_factory) -> Place:
    """Six pairs for the writer that was trained there, two held out. Shared: copy it, never change it."""
    there = template.copy(tmp_path_factory.mktemp("aligning") / "here")
    for name, content in whole.items():
        (there.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (there.folder / name).write_bytes(content)
    revised, pairs = there.folder / "data" / "revised", []
    for n in range(8):
        texts, side = ("It sang.", short_story(n)), "train" if n < 6 else "held_out"
        pairs.append(Pair(f"p{n}", "made", f"{n}", f"Tell of {n}.", *texts, True, True, {"side": side}))
    write_jsonl(revised / "pairs.jsonl", pairs)
    write_jsonl(revised / "sft.jsonl", [])
    write_json(revised / "report.json", {"pairs": len(pairs)})
    return place(warm, there.folder, "align")


@pytest.fixture(scope="session")
def killed(template, tmp_path_factory) -> Place:
    """Killed after the fourth step was saved: there are checkpoints of steps 3 and 4."""
    place, number = template.copy(tmp_path_factory.mktemp("killed") / "here"), 33
    while [path.name[-1] for path in place.checkpoints()] != ["3", "4"]:
        shutil.rmtree(place.work, ignore_errors=True)
        number += 4
        assert place.run(("die_at", number)) == -9, place.said
    return place


@pytest.fixture
def interrupted(killed, tmp_path) -> Place:
    return killed.copy(tmp_path / "here")


@pytest.fixture(scope="session")
def ran(warm, tmp_path_factory, tiny_model_dir) -> Callable[[str], Place]:
    """A stage in a folder where it and those before it have run. Shared: copy it, never change it."""
    folder, done = tmp_path_factory.mktemp("graph"), {}
    shutil.copytree(ROOT / "data", folder / "data", ignore=lambda *_: ["raw", "processed", "evaluated"])
    for name, text in stories(30).items():
        (folder / "data" / "my-stories" / name).write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "params.yaml", folder)
    Repository(folder, {}).choose({**TINY, "model.origin": f"folder:{tiny_model_dir}"})

    def run_to(wanted: str) -> Place:
        for stage in GRAPH:
            if stage not in done:
                done[stage] = place(warm, folder, stage)
                assert done[stage].run() == 0, done[stage].said
            if stage == wanted:
                return done[stage]

    return run_to
