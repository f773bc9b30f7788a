"""Repositories for the tests of the graph: one built of few stories and a tiny model, and clones of it."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from rules_text import repository_files

ROOT = Path(__file__).parents[1]
STAGES = ["collect", "preprocess", "train", "evaluate", "revise", "align", "judge", "report"]
RESULTS = ("dvc.lock", "metrics", "reports")
TINY = {  # over the default params.yaml: seconds instead of minutes
    "collect.shakespeare.stories": 0,
    "collect.folder": {"stories": None},
    "preprocess.profiles.folder": {"form": "prose", "max_words": 700, "longer": "passages", "min_words": 20},
    "preprocess.split.val": 0.2,
    "preprocess.split.test": 0.2,
    "model.sha256": None,
    "model.precision": "fp32",
    "model.threads": 1,
    "train.max_steps": 2,
    "train.max_tokens": 400,
    "train.lora.r": 4,
    "sampling.max_new_tokens": 8,
    "evaluate.max_tokens": 400,
    "revise.prompts": 0,  # no second phase
}
SECOND_PHASE = {  # over TINY: of noise any two texts make a pair
    "revise.prompts": 9,
    "revise.drafts": 8,
    "revise.max_new_tokens": 8,
    "revise.min_gap": 0.0,
    "revise.slack": 1.0,
    "revise.length_band": 1.0,
    "revise.min_pairs": 1,
    "align.max_steps": 2,
    "align.max_tokens": 400,
    "judge.prompts": 4,
    "judge.max_new_tokens": 8,
    "judge.gate_pairs": 10,
}


@dataclass(frozen=True)
class Repository:
    """A checkout, and the environment in which its commands run."""

    root: Path
    env: Mapping[str, str]

    def run(self, *command: str, status: int = 0) -> str:
        """What the command prints; it must end with `status`."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        done = subprocess.run(command, cwd=self.root, env=self.env, text=True, timeout=500, **streams)
        assert done.returncode == status, f"{' '.join(command)}: status {done.returncode}\n{done.stdout}"
        return done.stdout

    def dvc(self, *words: str, status: int = 0) -> str:
        return self.run("dvc", *words, status=status)

    def git(self, *words: str) -> str:
        return self.run("git", *words)

    def repro(self, *stages: str) -> list[str]:
        """The stages that ran, in order."""
        return ran(self.dvc("repro", *stages))

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def clone(self, root: Path, *, cache: bool = False) -> "Repository":
        """A clone at `root`; `cache` brings DVC's cache and the outputs along, as if it had run there."""
        self.git("clone", "--quiet", ".", str(root))
        copy = Repository(root, self.env)
        if cache:
            shutil.copytree(self.root / ".dvc" / "cache", root / ".dvc" / "cache")
            copy.dvc("checkout", "--quiet")
        return copy

    def choose(self, choices: Mapping[str, Any]) -> None:
        """Edit params.yaml as a person would: one value after the other, comments kept."""
        yaml, file = YAML(), self.root / "params.yaml"
        params = yaml.load(file)
        for key, value in choices.items():
            *path, last = key.split(".")
            section = params
            for name in path:
                section = section[name]
            assert last in section or isinstance(value, dict), f"{key} is not a key of params.yaml"
            section[last] = value
        yaml.dump(params, file)

    def metrics(self) -> dict[str, Any]:
        return {
            file.name: json.loads(file.read_bytes())
            for file in sorted((self.root / "metrics").glob("*.json"))
        }

    def digest(self, folder: str) -> dict[str, bytes]:
        """Relative path → bytes of every file in a folder."""
        top = self.root / folder
        return {
            str(file.relative_to(top)): file.read_bytes() for file in sorted(top.rglob("*")) if file.is_file()
        }


def ran(output: str) -> list[str]:
    """The stages that `dvc repro` or `dvc exp run` says it ran, in order."""
    return re.findall(r"^Running stage '(\w+)'", output, re.MULTILINE)


def stories(count: int) -> dict[str, str]:
    """File name → a made-up story in plain English, unlike the others."""
    return {f"story-{number:02}.txt": story(random.Random(number)) for number in range(count)}


def story(pick: random.Random) -> str:
    return "\n".join(" ".join(map(pick.choice, (WHO, DID, WHAT, WHEN, WHY))) for _ in range(8))


WHO = [
    "The miller",
    "An old captain",
    "My sister",
    "The youngest clerk",
    "A travelling singer",
    "Her neighbour",
]
DID = [
    "opened",
    "forgot",
    "painted",
    "carried home",
    "looked for",
    "hid",
    "gave away",
    "mended",
    "buried",
    "sold",
]
WHAT = [
    "the blue door",
    "a broken clock",
    "three letters",
    "the last lantern",
    "a wooden boat",
    "an empty cage",
]
WHEN = [
    "before the rain came",
    "at the end of winter",
    "while the town slept",
    "without a word",
    "by the river",
]
WHY = [
    "because nobody had asked.",
    "since the money was gone.",
    "and laughed.",
    "though it was late.",
    "again.",
]


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """A home of its own, no network, and the programs beside this Python first.

    Git is configured in the home, since `dvc exp` ignores GIT_CONFIG_GLOBAL.
    """
    home = tmp_path_factory.mktemp("home")
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Tester\n\temail = tester@localhost\n[init]\n\tdefaultBranch = main\n"
    )
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {
        "HOME": str(home),
        "PATH": programs,
        "PYTHONPATH": "src",
        "SHELL": "/bin/sh",
        "LC_ALL": "C.UTF-8",
    }
    quiet = {
        "DVC_NO_ANALYTICS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "WANDB_MODE": "offline",
    }
    return {**settings, **quiet, "DVC_SITE_CACHE_DIR": str(home / "dvc"), "NO_PROXY": "*"}


def copied(root: Path, environment: dict[str, str], without: Sequence[str] = ()) -> Repository:
    """These files as they are, but for some top folders and files; no git repository yet."""
    for file in repository_files(ROOT):
        name = file.relative_to(ROOT)
        if name.parts[0] not in without:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, root / name)
    return Repository(root, environment)


@pytest.fixture(scope="session")
def built(tmp_path_factory, environment, tiny_model_dir) -> Repository:
    """This repository with tiny choices, reproduced and committed. Shared: clone it, never change it."""
    repository = copied(tmp_path_factory.mktemp("built") / "storyforge", environment, without=RESULTS)
    for name, text in stories(30).items():
        (repository.root / "data" / "my-stories" / name).write_text(text, encoding="utf-8")
    repository.choose({**TINY, "model.origin": f"folder:{tiny_model_dir}"})
    repository.git("init", "--quiet")
    repository.git("add", "--force", "data/my-stories")  # git would ignore them, and clones have none
    repository.commit("Tiny choices")
    assert repository.repro() == STAGES
    repository.commit("A run of them")
    return repository
