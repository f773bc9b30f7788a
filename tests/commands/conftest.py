"""Two repositories to run commands in: one with stories and the tiny model, one that DVC itself has run."""

import json
import shutil
from pathlib import Path

import pytest
from pipeline import Repository
from ruamel.yaml import YAML
from typer.testing import CliRunner

from storyforge.cli import app
from storyforge.core.files import write_json, write_jsonl
from storyforge.core.records import Story
from storyforge.model.loading import ModelParams, adapter_weights, save_adapter

ROOT = Path(__file__).parents[2]
PROMPTS = """
prompts:
  - {id: fog-bell, kind: mystery, prompt: A bell rings in the fog.}
  - {id: last-rose, kind: romance, prompt: He keeps the last rose.}
"""
RULES = {
    "short": {"dropped": 2, "would_drop_alone": 3, "examples": []},
    "foreign": {"dropped": 0, "would_drop_alone": 1, "examples": []},
}
DVC_YAML = """
stages:
  make:
    cmd: python make.py
    deps: [make.py]
    outs: [single.bin, folder]
    metrics:
      - number.json: {cache: false}
"""
MAKE = """
from pathlib import Path
Path("folder/deep").mkdir(parents=True)
for n in range(100):
    Path(f"folder/deep/{n}.txt" if n % 2 else f"folder/{n}.txt").write_text(f"story {n}" * 50)
Path("single.bin").write_bytes(bytes(3000))
Path("number.json").write_text("{}")
"""


@pytest.fixture
def clone(tmp_path, monkeypatch, model_params, exchanges):
    """The working directory; nothing in it was run by DVC."""
    root = tmp_path / "clone"
    (root / "data").mkdir(parents=True)
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["model"] = model_params.model_dump(mode="json")
    params["sampling"] |= {"max_new_tokens": 12, "temperature": 1.0}
    params["train"]["max_tokens"] = 200
    YAML(typ="safe").dump(params, root / "params.yaml")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "data" / "prompts.yaml").write_text(PROMPTS)
    told = [Story(e.id, e.source, e.group, None, f"Raw. {e.story}", "MIT") for e in exchanges]
    write_jsonl(root / "data/raw/made.jsonl", told)
    for side, part in (("train", exchanges[:6]), ("val", exchanges[6:8]), ("test", exchanges[8:])):
        write_jsonl(root / f"data/processed/{side}.jsonl", part)
    dropped = [
        {**json.loads(line), "id": f"no-{n}", "reasons": {"short": f"{n} words, not 20"}}
        for n, line in enumerate((root / "data/processed/train.jsonl").read_text().splitlines()[:2])
    ]
    write_jsonl(root / "data/processed/rejected.jsonl", dropped)
    write_json(root / "data/processed/metadata.json", {"sources": {"made": {"drafts": 11, "rules": RULES}}})
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def adapter(clone, tuned):
    """models/tuned of the clone."""
    save_adapter(clone / "models/tuned", tuned, adapter_weights(tuned), ModelParams.load())
    return clone / "models" / "tuned"


@pytest.fixture
def older(adapter, tuned):
    """A second adapter, which says something else."""
    weights = {
        name: weight * (-1 if "lora_B" in name else 1) for name, weight in adapter_weights(tuned).items()
    }
    save_adapter(adapter.with_name("older.1"), tuned, weights, ModelParams.load())
    return adapter.with_name("older.1")


@pytest.fixture
def aligned(older):
    """models/aligned of the clone."""
    return older.rename(older.with_name("aligned"))


@pytest.fixture
def storyforge():
    """Runs a command line as its user would, and checks its status."""

    def run(*words: str, status: int = 0, typed: str | None = None):
        done = CliRunner().invoke(app, words, input=typed, prog_name="storyforge")
        assert done.exit_code == status, f"status {done.exit_code}\n{done.output}\n{done.exception!r}"
        return done

    return run


@pytest.fixture(scope="session")
def ran(tmp_path_factory, environment) -> Repository:
    """A repository in which DVC itself ran a stage: a folder of 100 files, a file, and one that git keeps."""
    root = tmp_path_factory.mktemp("ran")
    files = {"dvc.yaml": DVC_YAML, "make.py": MAKE, "params.yaml": "", ".dvcignore": ".DS_Store\n"}
    for name, text in files.items():
        (root / name).write_text(text)
    repository = Repository(root, environment)
    repository.git("init", "--quiet")
    repository.dvc("init", "--quiet")
    repository.dvc("repro", "--quiet")
    repository.commit("run")
    return repository


@pytest.fixture
def copy(ran, tmp_path, monkeypatch) -> Path:
    root = shutil.copytree(ran.root, tmp_path / "copy", symlinks=True)
    for name, value in ran.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(root)
    return root
