"""What CI takes for the same result."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

AGREE = Path(__file__).parents[1] / ".ci" / "agree.py"
disagreements = runpy.run_path(str(AGREE))["disagreements"]
RUN = {
    "steps": 300,
    "tuned": {"loss": 3.3, "perplexity": 27.1},
    "improvement": {"low": 0.39},
    "best_step": 280,
}
HERE, ELSEWHERE = {"processor": "AVX512", "threads": 2}, {"processor": "AVX2", "threads": 2}
PAIRS = {"pairs": 90, "score": {"drafts": 0.7}}
LOCK = "stages: {{collect: {{cmd: a}}, preprocess: {{cmd: {cmd}}}, train: {{cmd: {train}}}}}\n"


def test_last_bits_and_the_best_step_may_differ():
    now = {**RUN, "tuned": {"loss": 3.306, "perplexity": 27.26}, "best_step": 290}
    assert list(disagreements(RUN, now, "m")) == []


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"steps": 301}, "m.steps"),
        ({"tuned": {"loss": 3.4, "perplexity": 27.1}}, "m.tuned.loss"),
        ({"tuned": {"loss": 3.3}}, "m.tuned.perplexity"),
        ({"improvement": {"low": 0.36}}, "m.improvement.low"),
        ({"improvement": {"low": None}}, "m.improvement.low"),
    ],
)
def test_count_loss_or_missing_number_that_differs_is_named(change, key):
    assert [line.split(":")[0] for line in disagreements(RUN, {**RUN, **change}, "m")] == [key]


@pytest.fixture
def checkout(tmp_path):
    """A committed run of the machine class HERE, and a function that leaves another run in its place."""

    def run(machine: dict, loss: float, *, cmd: str = "b", train: str = "c", drawn: dict = PAIRS) -> None:
        files = {
            "dvc.lock": LOCK.format(cmd=cmd, train=train),
            "metrics/train.json": json.dumps({"validation": {"best_loss": loss}}),
            "metrics/evaluate.json": json.dumps({"tuned": {"loss": loss}}),
            **{f"metrics/{stage}.json": json.dumps(drawn) for stage in ("revise", "align", "judge")},
            "metrics/timing/train.json": json.dumps({"machine": machine, "seconds": loss}),
            ".gitignore": "/metrics/timing/\n",
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)

    (tmp_path / ".ci").mkdir()
    run(HERE, 3.23)
    assert agree(tmp_path, "--record")[0] == 0
    who = ["-c", "user.name=Tester", "-c", "user.email=tester@localhost"]
    for words in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "A run"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path, run


def agree(root: Path, *words: str) -> tuple[int, str]:
    command = [sys.executable, str(AGREE), *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_on_the_machine_class_of_the_committed_run_nothing_may_change(checkout):
    root, run = checkout
    run(HERE, 3.23)
    assert agree(root) == (0, "agrees with the committed run\n")
    run(HERE, 3.230001)
    assert agree(root) == (1, " M metrics/evaluate.json\n M metrics/train.json\n")


def test_a_staged_lock_is_a_change_too(checkout):
    root, run = checkout
    run(HERE, 3.23, train="d")
    subprocess.run(["git", "add", "dvc.lock"], cwd=root, check=True)
    assert agree(root) == (1, "M  dvc.lock\n")


def test_another_machine_class_may_round_otherwise_and_is_named(checkout):
    root, run = checkout
    run(ELSEWHERE, 3.24, train="d")
    assert agree(root) == (
        0,
        "another machine class: processor AVX512 → AVX2\nagrees with the committed run\n",
    )
    run(ELSEWHERE, 3.34)
    status, said = agree(root)
    assert status == 1 and "metrics/evaluate.json.tuned.loss: committed 3.23, now 3.34" in said
    run(ELSEWHERE, 3.24, train="d", drawn={"pairs": 81, "score": {"drafts": 0.6}})
    assert agree(root)[0] == 0
    run(ELSEWHERE, 3.24, train="d", drawn={"pairs": 81})
    assert agree(root)[0] == 1 and "metrics/judge.json: other figures than" in agree(root)[1]
    run(ELSEWHERE, 3.24, cmd="other")
    assert agree(root)[0] == 1 and "dvc.lock: preprocess changed" in agree(root)[1]


def test_bare_make_prints_every_verb_with_its_text_and_does_nothing(tmp_path):
    makefile = AGREE.parents[1] / "Makefile"
    (tmp_path / "Makefile").write_text(makefile.read_text(encoding="utf-8"))
    done = subprocess.run(["make"], cwd=tmp_path, capture_output=True, text=True, check=True)
    verbs = re.search(r"^\.PHONY: (.*)$", makefile.read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    printed = dict(re.findall(r"^  make (\w+) +(\S.*)$", done.stdout, re.MULTILINE))
    assert printed.keys() == set(verbs) - {"dev"} and list(tmp_path.iterdir()) == [tmp_path / "Makefile"]
