"""The repository keeps its own rules, and each rule is shown to catch a breach."""

import importlib
import subprocess
from pathlib import Path

import pytest
import rules_code
import rules_graph
import rules_text
from ruamel.yaml import YAML

from storyforge.commands.recipe import laid

ROOT = Path(__file__).parents[2]
RULES = [
    rules_code.directions,
    rules_code.torch_where_models_are,
    rules_code.light_ground,
    rules_code.pinned,
    rules_code.silent_stages,
    rules_code.docstring_inits,
    rules_code.sizes,
    rules_graph.code_deps,
    rules_graph.read_params,
    rules_graph.commands,
    rules_graph.same_keys,
    rules_text.strangers,
    rules_text.secrets,
    rules_text.drawn_tree,
]

DVC_YAML = """
stages:
  train:
    cmd: >-
      exec env PYTHONPATH=src python -m storyforge.train.stage data/in models/out metrics/train.json
      metrics/timing/train.json
    deps:
      - data/in
      - src/storyforge/core
      - src/storyforge/model
      - src/storyforge/train
    params: [model, train]
    outs: [models/out]
    metrics:
      - metrics/train.json: {cache: false}
"""
TRAIN = """
from storyforge.model.loading import load
from storyforge.core.params import Params
class TrainParams(Params):
    section: ClassVar[str] = "train"
def main(stories, adapter, metrics): ...
"""
TREE = """
```
.
├── dvc.yaml params.yaml   the pipeline
├── models/
│   └── out/               the adapter
└── src/storyforge/
    ├── core/              typed choices
    ├── preprocess/        clean text
    ├── model/
    └── train/
```
"""
SOUND = {
    "src/storyforge/__init__.py": '"""A map."""\n',
    "src/storyforge/core/__init__.py": '"""Core."""\n',
    "src/storyforge/core/params.py": "from pydantic import BaseModel\nclass Params(BaseModel): ...\n",
    "src/storyforge/preprocess/__init__.py": '"""Text."""\n',
    "tests/test_clean.py": "import pytest\n",
    "src/storyforge/preprocess/clean.py": "import re\ndef clean(text): return text\n",
    "src/storyforge/model/__init__.py": '"""Model."""\n',
    "src/storyforge/model/loading.py": (
        "import torch\nfrom storyforge.core.params import Params\n"
        'class ModelParams(Params):\n    section = "model"\n'
    ),
    "src/storyforge/train/__init__.py": '"""Train."""\n',
    "src/storyforge/train/stage.py": TRAIN,
    "dvc.yaml": DVC_YAML,
    "params.yaml": "model: {name: m, lora: {r: 8}}\ntrain: {steps: 3}\n",
    "recipes/big.yaml": "model: {name: b, lora: {r: 16}}\ntrain: {steps: 900}\n",
    ".dvc/config": "[core]\n    remote = beside\n['remote \"beside\"']\n    url = ../../beside\n",
    "CONTRIBUTING.md": TREE,
    "requirements-dev.txt": "pytest==9.2.0\n",
    "requirements.txt": "-c constraints.txt\npydantic==2.14.3\ntorch==2.13.0\nruamel.yaml==0.19.1\n",
}
MACHINE = "/" + "work/main"
HOST = "https://" + "mirror.somewhere/simple"

BREACHES = [
    (
        rules_code.directions,
        "src/storyforge/preprocess/clean.py",
        "from storyforge.model import loading",
        "knows",
    ),
    (
        rules_code.directions,
        "src/storyforge/core/params.py",
        "def f():\n    import storyforge.preprocess.clean",
        "knows",
    ),
    (
        rules_code.directions,
        "src/storyforge/preprocess/tell.py",
        "from storyforge.train.stage import main",
        "knows core, measures, preprocess",
    ),
    (rules_code.directions, "src/storyforge/preprocess/clean.py", "from . import other", "relative"),
    (rules_code.torch_where_models_are, "src/storyforge/preprocess/clean.py", "import torch.nn", "torch.nn"),
    (
        rules_code.torch_where_models_are,
        "src/storyforge/core/params.py",
        "from peft import x",
        "peft.x",
    ),
    (rules_code.light_ground, "src/storyforge/core/params.py", "import pandas", "pandas"),
    (rules_code.pinned, "src/storyforge/preprocess/clean.py", "import pytest", "does not name it"),
    (rules_code.pinned, "tests/test_clean.py", "import hypothesis", "does not name it"),
    (rules_code.silent_stages, "src/storyforge/preprocess/clean.py", "def f(): print('x')", "print"),
    (
        rules_code.silent_stages,
        "src/storyforge/preprocess/clean.py",
        "def f(p): return p.read_text()",
        "read_text",
    ),
    (
        rules_code.silent_stages,
        "src/storyforge/preprocess/clean.py",
        "from storyforge.core.files import read_yaml",
        "read_yaml",
    ),
    (rules_code.docstring_inits, "src/storyforge/preprocess/__init__.py", "from re import sub", "docstring"),
    (rules_code.docstring_inits, "src/storyforge/preprocess/__init__.py", "", "docstring"),
    (rules_code.sizes, "src/storyforge/preprocess/clean.py", "def f():\n" + "    x = 1\n" * 51, "52 lines"),
    (rules_code.sizes, "src/storyforge/preprocess/clean.py", "x = 1\n" * 281, "281 lines"),
    (rules_code.sizes, "src/storyforge/preprocess/clean.py", "def f(a, b, c, d, e, f): ...", "6 positional"),
    (
        rules_graph.code_deps,
        "dvc.yaml",
        DVC_YAML.replace("      - src/storyforge/model\n", ""),
        "missing",
    ),
    (
        rules_graph.code_deps,
        "src/storyforge/train/stage.py",
        TRAIN.replace("storyforge.model.loading", "m"),
        "model is not used",
    ),
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
        DVC_YAML.replace("stage data/in models", "stage models"),
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
    (rules_graph.commands, "src/storyforge/train/stage.py", "def main(stories): ...", "main() takes 1"),
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
    (
        rules_graph.same_keys,
        "recipes/big.yaml",
        "collect: {plays: {stories: 3}}\npreprocess: {profiles: {}}\n",
        "big.yaml: profiles: plays is missing",
    ),
    (
        rules_graph.same_keys,
        "params.yaml",
        "collect: {}\npreprocess: {split: {held_out: {plays: {}}}, profiles: {tales: {}}}\n",
        "held_out: plays is not used",
    ),
    (rules_text.strangers, "notes.md", f"see {MACHINE}/src", MACHINE),
    (rules_text.strangers, "notes.md", f"pip install --index-url {HOST} torch", "mirror.somewhere"),
    (rules_text.secrets, ".dvc/config", "['remote \"s3\"']\nsecret_access_key = x", "secret_access_key"),
    (rules_text.secrets, ".dvc/config", "['remote \"s3\"']\nurl = ssh://me:pw@box/store", "url"),
    (rules_text.secrets, ".dvc/config", f"['remote \"here\"']\nurl = {MACHINE}", "url"),
    (rules_text.drawn_tree, "CONTRIBUTING.md", TREE.replace("preprocess/", "wash/"), "wash does not exist"),
    (rules_text.drawn_tree, "src/storyforge/report/__init__.py", "", "report is missing"),
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
    (sound / path).parent.mkdir(exist_ok=True)
    (sound / path).write_text(text)
    assert any(complaint in line for line in rule(sound)), list(rule(sound))


def test_every_rule_is_shown_to_catch_something():
    assert {rule for rule, *_ in BREACHES} == set(RULES)


def params_classes():
    for module, file in rules_code.modules(ROOT).items():
        if rules_graph.sections(file):
            members = vars(importlib.import_module(module)).values()
            yield from (m for m in members if getattr(m, "section", None) and m.__module__ == module)


@pytest.mark.torch
@pytest.mark.parametrize(
    "file", [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))], ids=lambda f: f.stem
)
def test_every_section_of_a_recipe_is_valid(file):
    classes = list(params_classes())
    for params in classes:
        params.load(file)
    assert {params.section for params in classes} == set(YAML(typ="safe").load(file))


@pytest.mark.torch
@pytest.mark.parametrize("base", sorted((ROOT / "recipes/bases").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_section_is_valid_on_every_base(base, tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(laid(ROOT / "recipes/my-stories.yaml", base))
    for params in params_classes():
        params.load(file)
