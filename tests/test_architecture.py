"""The repository keeps its own rules, and each rule is shown to catch a breach."""

import importlib
import subprocess
from pathlib import Path

import pytest
import rules_code
import rules_graph
import rules_text
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
RULES = [
    rules_code.layers,
    rules_code.torch_in_one_folder,
    rules_code.light_ground,
    rules_code.pinned,
    rules_code.silent_text,
    rules_code.docstring_inits,
    rules_code.sizes,
    rules_graph.code_deps,
    rules_graph.read_params,
    rules_graph.commands,
    rules_graph.same_keys,
    rules_text.strangers,
    rules_text.secrets,
    rules_text.readme_tree,
]

DVC_YAML = """
stages:
  train:
    cmd: >-
      exec env PYTHONPATH=src python -m storyforge.stages.train data/in models/out metrics/train.json
      metrics/timing/train.json
    deps:
      - data/in
      - src/storyforge/params.py
      - src/storyforge/text/clean.py
      - src/storyforge/model/loading.py
      - src/storyforge/stages/train.py
    params: [model, train]
    outs: [models/out]
    metrics:
      - metrics/train.json: {cache: false}
"""
TRAIN = """
from storyforge.model.loading import load
from storyforge.params import Params
class TrainParams(Params):
    section: ClassVar[str] = "train"
def main(stories, adapter, metrics): ...
"""
README = """
```
.
├── dvc.yaml params.yaml   the pipeline
├── models/
│   └── out/               the adapter
└── src/storyforge/
    ├── params.py          typed choices
    ├── text/
    │   └── clean.py
    ├── model/
    │   └── loading.py
    └── stages/
        └── train.py
```
"""
SOUND = {
    "src/storyforge/__init__.py": '"""A map."""\n',
    "src/storyforge/params.py": "from pydantic import BaseModel\nclass Params(BaseModel): ...\n",
    "src/storyforge/text/__init__.py": '"""Text."""\n',
    "src/storyforge/text/clean.py": "import re\ndef clean(text): return text\n",
    "src/storyforge/model/__init__.py": '"""Model."""\n',
    "src/storyforge/model/loading.py": (
        "import torch\nfrom storyforge.params import Params\nfrom storyforge.text import clean\n"
        'class ModelParams(Params):\n    section = "model"\n'
    ),
    "src/storyforge/stages/__init__.py": '"""Stages."""\n',
    "src/storyforge/stages/train.py": TRAIN,
    "dvc.yaml": DVC_YAML,
    "params.yaml": "model: {name: m, lora: {r: 8}}\ntrain: {steps: 3}\n",
    "recipes/big.yaml": "model: {name: b, lora: {r: 16}}\ntrain: {steps: 900}\n",
    ".dvc/config": "[core]\n    remote = beside\n['remote \"beside\"']\n    url = ../../beside\n",
    "README.md": README,
    "requirements.txt": "-c constraints.txt\npydantic==2.14.3\ntorch==2.13.0\nruamel.yaml==0.19.1\n",
}
MACHINE = "/" + "work/main"
HOST = "https://" + "mirror.somewhere/simple"

BREACHES = [
    (
        rules_code.layers,
        "src/storyforge/text/clean.py",
        "from storyforge.model import loading",
        "later layer",
    ),
    (
        rules_code.layers,
        "src/storyforge/params.py",
        "def f():\n    import storyforge.text.clean",
        "later layer",
    ),
    (
        rules_code.layers,
        "src/storyforge/stages/tell.py",
        "from storyforge.stages.train import main",
        "two stages",
    ),
    (rules_code.layers, "src/storyforge/text/clean.py", "from . import other", "relative"),
    (rules_code.torch_in_one_folder, "src/storyforge/text/clean.py", "import torch.nn", "torch.nn"),
    (
        rules_code.torch_in_one_folder,
        "src/storyforge/stages/train.py",
        TRAIN + "from peft import x",
        "peft.x",
    ),
    (rules_code.light_ground, "src/storyforge/params.py", "import pandas", "pandas"),
    (rules_code.pinned, "src/storyforge/text/clean.py", "import pytest", "does not name it"),
    (rules_code.silent_text, "src/storyforge/text/clean.py", "def f(): print('x')", "print"),
    (rules_code.silent_text, "src/storyforge/text/clean.py", "def f(p): return p.read_text()", "read_text"),
    (
        rules_code.silent_text,
        "src/storyforge/text/clean.py",
        "from storyforge.records import read_yaml",
        "read_yaml",
    ),
    (rules_code.docstring_inits, "src/storyforge/text/__init__.py", "from re import sub", "docstring"),
    (rules_code.docstring_inits, "src/storyforge/text/__init__.py", "", "docstring"),
    (rules_code.sizes, "src/storyforge/text/clean.py", "def f():\n" + "    x = 1\n" * 51, "52 lines"),
    (rules_code.sizes, "src/storyforge/text/clean.py", "x = 1\n" * 281, "281 lines"),
    (rules_code.sizes, "src/storyforge/text/clean.py", "def f(a, b, c, d, e, f): ...", "6 positional"),
    (
        rules_graph.code_deps,
        "dvc.yaml",
        DVC_YAML.replace("      - src/storyforge/text/clean.py\n", ""),
        "missing",
    ),
    (rules_graph.code_deps, "src/storyforge/model/loading.py", "import torch", "clean.py is not used"),
    (rules_graph.read_params, "dvc.yaml", DVC_YAML.replace("[model, train]", "[train]"), "model is missing"),
    (rules_graph.read_params, "dvc.yaml", DVC_YAML.replace("[model,", "[model, demo,"), "demo is not used"),
    (
        rules_graph.read_params,
        "params.yaml",
        "model: 1\ntrain: 2\ndemo: 3\n",
        "params.yaml: demo is not used",
    ),
    (
        rules_graph.commands,
        "dvc.yaml",
        DVC_YAML.replace("train data/in models", "train models"),
        "data/in is missing",
    ),
    (
        rules_graph.commands,
        "dvc.yaml",
        DVC_YAML.replace("    outs: [models/out]\n", ""),
        "models/out is not used",
    ),
    (rules_graph.commands, "dvc.yaml", DVC_YAML.replace("timing/train", "timing/other"), "ends with"),
    (rules_graph.commands, "dvc.yaml", DVC_YAML.replace("PYTHONPATH=src ", ""), "does not begin"),
    (rules_graph.commands, "src/storyforge/stages/train.py", "def main(stories): ...", "main() takes 1"),
    (
        rules_graph.same_keys,
        "recipes/big.yaml",
        "model: {name: b, lora: {}}\ntrain: {steps: 9}",
        "lora.r is missing",
    ),
    (
        rules_graph.same_keys,
        "recipes/big.yaml",
        "model: {name: b, lora: {r: 1, q: 2}}\ntrain: {steps: 9}",
        "lora.q",
    ),
    (rules_text.strangers, "notes.md", f"see {MACHINE}/src", MACHINE),
    (rules_text.strangers, "notes.md", f"pip install --index-url {HOST} torch", "mirror.somewhere"),
    (rules_text.secrets, ".dvc/config", "['remote \"s3\"']\nsecret_access_key = x", "secret_access_key"),
    (rules_text.secrets, ".dvc/config", "['remote \"s3\"']\nurl = ssh://me:pw@box/store", "url"),
    (rules_text.secrets, ".dvc/config", f"['remote \"here\"']\nurl = {MACHINE}", "url"),
    (rules_text.readme_tree, "README.md", README.replace("clean.py", "wash.py"), "wash.py does not exist"),
    (rules_text.readme_tree, "src/storyforge/text/new.py", "", "text/new.py is missing"),
]


@pytest.fixture
def sound(tmp_path):
    """A small repository that keeps every rule."""
    for name, text in SOUND.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    return tmp_path


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_repository_keeps_the_rule(rule):
    breaches = list(rule(ROOT))
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_sound_tree_is_left_in_peace(rule, sound):
    assert list(rule(sound)) == []


@pytest.mark.parametrize(
    ("rule", "path", "text", "complaint"),
    BREACHES,
    ids=[f"{rule.__name__}: {complaint}" for rule, *_, complaint in BREACHES],
)
def test_breach_is_found(rule, path, text, complaint, sound):
    (sound / path).write_text(text)
    assert any(complaint in line for line in rule(sound)), list(rule(sound))


def test_every_rule_is_shown_to_catch_something():
    assert {rule for rule, *_ in BREACHES} == set(RULES)


def params_classes():
    for module, file in rules_code.modules(ROOT).items():
        if rules_graph.sections(file):
            members = vars(importlib.import_module(module)).values()
            yield from (m for m in members if getattr(m, "section", None) and m.__module__ == module)


@pytest.mark.parametrize(
    "file", [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))], ids=lambda f: f.stem
)
def test_every_section_of_a_recipe_is_valid(file):
    classes = list(params_classes())
    for params in classes:
        params.load(file)
    assert {params.section for params in classes} == set(YAML(typ="safe").load(file))
