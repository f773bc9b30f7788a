"""The notebook runs from its first cell to its last, Colab's parts too, and stops where a stage fails."""

import ast
import json
import re
from html import escape
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from pipeline import STAGES, Repository, copied, ran

from storyforge.core.cache import cache_dir

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "storyforge_colab.ipynb"
[PIN] = re.findall(r"(?m)^torch==(\S+)", (ROOT / "requirements.txt").read_text())
FIELD = re.compile(r"^(?P<name>[A-Z_]+) = (?P<value>.+?)  # @param (?P<kind>.+)$", re.MULTILINE)
SHORT = {  # over the default params.yaml: a minute on two cores instead of four
    "collect.shakespeare.stories": 150,
    "model.threads": 1,
    "train.validation_stories": 4,
    "sampling.max_new_tokens": 48,
    "evaluate.stories": 8,
    "evaluate.samples_per_prompt": 1,
    "evaluate.opening_words": 26,
    "evaluate.prompt_use.stories": 0,
}
PROMPT = """It's "5 $HOME" {root} `ls` \\ $(ls) & #"""  # what a shell or IPython would make something else of
COLAB = {  # as much of google.colab as the notebook asks for
    "drive.py": "def mount(folder): pass\n",
    "userdata.py": """
class SecretNotFoundError(Exception): pass
class NotebookAccessError(Exception): pass
def get(name): raise SecretNotFoundError(name)
""",
}


class Run:
    """The notebook with its form filled in, executed in a folder as far as it gets."""

    def __init__(self, folder: Path, env: dict[str, str], **choices):
        self.notebook = nbformat.read(NOTEBOOK, 4)
        self.cells = {cell.id: cell for cell in self.notebook.cells}
        for name, value in choices.items():
            field = re.compile(f"^{name} = .* # @param", re.MULTILINE)
            holders = [cell for cell in self.cells.values() if field.search(cell.source)]
            assert len(holders) == 1, f"{len(holders)} cells have the field {name}"
            line = f"{name} = {value!r}"
            holders[0].source = re.sub(f"(?m)^{name} = .*$", lambda _, line=line: line, holders[0].source)
        resources = {"metadata": {"path": str(folder)}}
        self.client = NotebookClient(self.notebook, timeout=1500, kernel_name="python3", resources=resources)
        self.env = env

    def execute(self) -> "Run":
        self.client.execute(env=dict(self.env))
        return self

    def printed(self, cell: str) -> str:
        text = "".join(out.text for out in self.cells[cell].outputs if out.output_type == "stream")
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def shown(self, cell: str, kind: str) -> list[str]:
        return [out.data[kind] for out in self.cells[cell].outputs if kind in out.get("data", {})]


@pytest.fixture
def kernels(environment, tmp_path, monkeypatch) -> dict[str, str]:
    """The environment of a kernel; what Jupyter itself keeps goes to this test's folder."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    return {**environment, "IPYTHONDIR": str(tmp_path / "jupyter")}


@pytest.fixture
def default(environment, tmp_path) -> Repository:
    """These files as they are, with the default choices made short; the real cache, for the base model."""
    here = copied(tmp_path / "storyforge", {**environment, "STORYFORGE_CACHE": str(cache_dir())})
    here.choose(SHORT)
    here.git("init", "--quiet")
    here.commit("The default, made short")
    return here


def test_it_is_stored_without_what_a_run_leaves():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)


def test_every_code_cell_is_plain_python_with_a_text_before_it():
    cells = nbformat.read(NOTEBOOK, 4).cells
    for before, cell in zip(cells, cells[1:], strict=False):
        if cell.cell_type == "code":
            ast.parse(cell.source, cell.id)  # no magic
            assert before.cell_type == "markdown", f"nothing introduces {cell.id}"


def test_the_form_is_explained_and_its_recipes_exist():
    notebook = nbformat.read(NOTEBOOK, 4)
    cells = {cell.id: cell.source for cell in notebook.cells}
    fields = {field["name"]: field for field in FIELD.finditer(cells["choices"])}
    assert fields.keys() == set(re.findall(r"^- `([A-Z_]+)`", cells["about-choices"], re.MULTILINE))
    for field, folder in (("RECIPE", "recipes"), ("BASE", "recipes/bases")):
        known, offered = {file.stem for file in (ROOT / folder).glob("*.yaml")}, fields[field]["kind"]
        assert {ast.literal_eval(fields[field]["value"])} < set(ast.literal_eval(offered)) <= known | {""}


def test_a_choice_is_set_by_its_place_and_nothing_else_changes(kernels, tmp_path):
    """Not by the look of its line: a value on two lines, and the same key elsewhere, stay."""
    text = (
        "other:\n  max_steps: 1\ntrain:\n  max_steps: 120                # empty: all\n"
        "  system: You are a storyteller. Write the piece you are asked for, and nothing \n    else.\n"
    )
    cell = next(cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.id == "recipe")
    code = cell.source.partition("\nif RECIPE")[0]
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "cell.py").write_text(f"import subprocess\n{code}\nchoose('train', 'max_steps', 4)\n")
    Repository(tmp_path, kernels).run("python", "cell.py")
    assert (tmp_path / "params.yaml").read_text() == text.replace("120 ", "4   ")


@pytest.mark.parametrize("driver", [None, "535.104.05", "550.54.15", "570.86.10", "580.65.06"])
def test_an_older_driver_stops_it_and_the_build_that_it_runs_is_named(kernels, tmp_path, driver):
    """Stand-ins for nvidia-smi and for the torch that comes by itself, which is built with CUDA 13.0."""
    if driver:
        smi = tmp_path / "bin" / "nvidia-smi"
        smi.parent.mkdir()
        smi.write_text(f"#!/bin/sh\necho Tesla T4, {driver}, 7.5\n")
        smi.chmod(0o755)
    numbered = tmp_path / "usual" / f"torch-{PIN}.dist-info"
    numbered.mkdir(parents=True)
    (numbered / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {PIN}\n")
    (tmp_path / "usual/torch").mkdir()
    (tmp_path / "usual/torch/__init__.py").touch()
    (tmp_path / "usual/torch/version.py").write_text("cuda: str = '13.0'\n")
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, 4).cells}
    helper = cells["checkout"].partition("def shell")[2].partition("\nhere = ")[0]
    code = f"import shlex\nTORCH_INDEX = ''\ndef shell{helper}\n{cells['driver']}"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    paths = {
        "PATH": f"{tmp_path / 'bin'}:{kernels['PATH']}",
        "PYTHONPATH": f"{tmp_path / 'usual'}:{ROOT / 'src'}",
    }
    client = NotebookClient(notebook, timeout=60, kernel_name="python3")
    if driver in (None, "580.65.06"):
        client.execute(env=kernels | paths)
        return
    with pytest.raises(CellExecutionError, match="has failed"):
        client.execute(env=kernels | paths)
    [said] = [out.text for out in notebook.cells[0].outputs if out.output_type == "stream"]
    assert f"Tesla T4, driver {driver} is here, but torch {PIN} needs driver 580" in said
    assert f"make setup TORCH_INDEX=INDEX takes torch {PIN}+cu126" in said


def test_the_index_of_the_form_goes_to_set_up_and_to_the_look_at_the_driver():
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, 4).cells}
    quoted = "{shlex.quote(TORCH_INDEX)}"
    assert f"TORCH_INDEX={quoted}" in cells["checkout"] and f"graphics {quoted}" in cells["driver"]


def test_own_stories_are_uploaded_and_none_is_an_error(kernels, tmp_path):
    cell = next(cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.id == "stories")
    (tmp_path / "data/my-stories").mkdir(parents=True)
    (tmp_path / "data/my-stories/.gitkeep").touch()
    (tmp_path / "google/colab").mkdir(parents=True)
    head = "from pathlib import Path\nRECIPE = 'my-stories'\nshell = print\n"
    (tmp_path / "cell.py").write_text(f"{head}{cell.source}\n")
    here = Repository(tmp_path, kernels)
    assert "data/my-stories is empty" in here.run("python", "cell.py", status=1)
    upload = "def upload(): return {'a b.txt': b'One.', '../../evil.txt': b'Two.'}\n"
    (tmp_path / "google/colab/files.py").write_text(upload)
    said = here.run("python", "cell.py")
    assert "requirements-documents.txt" in said and "2 files and folders: a b.txt, evil.txt" in said
    assert (tmp_path / "data/my-stories/a b.txt").read_bytes() == b"One."


@pytest.mark.slow
def test_a_stage_that_fails_stops_it(built, kernels, tmp_path):
    here = built.clone(tmp_path / "storyforge", cache=True)
    here.choose({"train.learning_rate": "fast"})
    run = Run(here.root / "notebooks", kernels, RECIPE="")
    with pytest.raises(CellExecutionError, match="`dvc repro train` has failed"):
        run.execute()
    assert "train.learning_rate = 'fast'" in run.printed("run")
    assert not run.cells["curves"].outputs


def test_outside_a_clone_it_asks_for_the_repository(kernels, tmp_path):
    with pytest.raises(CellExecutionError, match="REPOSITORY is empty"):
        Run(tmp_path, kernels).execute()


@pytest.mark.slow
def test_what_went_to_drive_is_not_done_again_on_another_machine(built, kernels, tmp_path):
    for name, text in COLAB.items():
        module = tmp_path / "colab" / "google" / "colab" / name
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(text)
    env = {**kernels, "PYTHONPATH": f"{tmp_path / 'colab'}:src"}
    drive, runs = tmp_path / "My Drive", []
    for machine in ("one", "two"):
        (tmp_path / machine).mkdir()
        choices = {"REPOSITORY": str(built.root), "RECIPE": "", "DRIVE_FOLDER": str(drive), "STEPS": 3}
        runs.append(Run(tmp_path / machine, env, **choices, PROMPT=PROMPT).execute())
    first, second = runs
    assert ran(first.printed("run")) == STAGES
    assert ran(second.printed("run")) == []
    assert "There is no secret HF_TOKEN " in first.printed("drive")
    assert sorted(path.name for path in drive.iterdir() if path.suffix != ".patch") == ["checkpoints", "dvc"]

    one, two = (Repository(tmp_path / machine / "storyforge", env) for machine in ("one", "two"))
    assert one.digest("models/tuned") == two.digest("models/tuned")
    assert "steps: 3" in (two.root / "params.yaml").read_text()
    asked = Repository(one.root, {**env, "ASKED": PROMPT})
    story = asked.run("sh", "-c", 'storyforge sample -- "$ASKED" 2> /dev/null')  # same seed, same text
    assert story.strip() and "".join(story.split()) in "".join(first.printed("prompt").split())


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_it_runs_on_the_default_with_reduced_budgets(default, kernels):
    env = {**kernels, "STORYFORGE_CACHE": default.env["STORYFORGE_CACHE"]}
    run = Run(default.root / "notebooks", env, RECIPE="", STEPS=4).execute()
    assert ran(run.printed("run")) == STAGES
    assert default.metrics()["train.json"]["steps"] == 4

    report = (default.root / "reports" / "report.md").read_text()
    [findings] = run.shown("curves", "text/markdown")
    assert report.startswith(findings) and "held-out stories" in findings
    assert len(run.shown("curves", "image/png")) == 2

    lines = (default.root / "data" / "evaluated" / "samples.jsonl").read_text().splitlines()
    [table] = run.shown("samples", "text/html")
    for sample in map(json.loads, lines):
        assert all(escape(text) in table for text in (sample["base"]["text"], sample["tuned"]["text"]))
    assert run.printed("prompt").strip()

    assert run.printed("push") == "No DVC remote: download what you want to keep.\n"
    assert default.git("status", "--short", "notebooks") == ""
