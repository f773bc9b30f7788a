"""Training in two processes on a CPU, over loopback: started by the stage, killed, stopped, gone on with."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tiny import LOOP

from storyforge.core.files import write_jsonl
from storyforge.core.records import Exchange

ROOT = Path(__file__).parents[2]
MODEL = {
    "name": "tests/tiny-llama",
    "sha256": None,
    "chat": "smollm2",
    "system": "Tell a story.",
    "precision": "fp32",
    "quantization": "none",
    "attention": "eager",
    "threads": 1,
}
TRAIN = {
    **LOOP,
    "micro_batch_tokens": 150,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "checkpoint_every": 2,
    "lora": {"r": 4, "alpha": 8, "dropout": 0.1, "targets": "all-linear"},
}
STAGE = ["processed", "tuned", "train.json", "train.tsv", "val.tsv", "timing.json"]
# The stage, with something done before each step, once: `mark` is there when it has been.
HURT = """
import os, signal, sys, time
from pathlib import Path
from storyforge.core import before_torch
from storyforge.model.processes import launch_all
from storyforge.train import stage, step
take, rank = step.take, os.environ.get("RANK")
def hurt(run, items, steps):
    mark = Path(f"mark-{{rank}}")
    if run.state.step == 3 and not mark.exists():
        mark.write_text(str(os.getpid()))
        {harm}
    take(run, items, steps)
step.take = hurt
launch_all(stage.main)
"""
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


class Place:
    """A folder with what the train stage reads."""

    def __init__(self, folder: Path, model: Path):
        self.folder = folder
        folder.mkdir()
        rows = [
            Exchange(f"s{n}", "made", f"g{n}", f"Tell of {n} birds.", "Bird sang. " * (n % 4 + 1), True)
            for n in range(9)
        ]
        write_jsonl(folder / "processed" / "train.jsonl", rows[2:])
        write_jsonl(folder / "processed" / "val.jsonl", rows[:2])
        (folder / "engine.yaml").write_text("kind: local\ngpus: 2\n")
        self.choose(model=MODEL | {"origin": f"folder:{model}"})

    def choose(self, **sections) -> None:
        file = self.folder / "params.yaml"
        before = (
            YAML(typ="safe").load(file) if file.exists() else {"tracking": {"wandb": False}, "train": TRAIN}
        )
        YAML().dump(before | sections, file)

    def start(self, *words: str) -> subprocess.Popen:
        """Python with these words; the paths of the stage follow."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
        env |= {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "STORYFORGE_ALLOW_CPU": "1"}
        env["STORYFORGE_CHECKPOINT_DIR"] = str(self.folder / "work")
        command = [sys.executable, *words, *STAGE]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=env, **pipe)

    def run(self, *words: str) -> tuple[int, str]:
        """Its status, and what it said on stderr."""
        process = self.start(*words)
        return (process.communicate(timeout=300)[1], process.returncode)[::-1]

    def hurt(self, harm: str) -> str:
        (self.folder / "hurt.py").write_text(HURT.format(harm=harm))
        return "hurt.py"

    def outputs(self) -> dict[str, bytes]:
        files = [*sorted((self.folder / "tuned").iterdir()), *(self.folder / name for name in STAGE[2:-1])]
        return {file.name: file.read_bytes() for file in files}

    def saved(self) -> int:
        """The step of the newest checkpoint."""
        newest = max(self.folder.glob("work/*/step-*"))
        return json.loads((newest / "state.json").read_text())["step"]

    def children(self, process: subprocess.Popen) -> list[int]:
        """Once both processes are in the middle of the run."""
        marks = [self.folder / f"mark-{rank}" for rank in (0, 1)]
        while not all(mark.exists() and mark.read_text() for mark in marks):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        return [int(mark.read_text()) for mark in marks]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model_dir):
    """What two processes come to that were started by the stage itself, and its timing file."""
    place = Place(tmp_path_factory.mktemp("whole") / "place", tiny_model_dir)
    assert place.run("-m", "storyforge.train.stage") == (0, "")
    return place.outputs(), json.loads((place.folder / "timing.json").read_text())


@pytest.fixture
def place(tmp_path, tiny_model_dir):
    return Place(tmp_path / "place", tiny_model_dir)


def gone(pids: list[int], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < end:
        time.sleep(0.1)
    return not left


def test_the_stage_starts_as_many_processes_as_engine_yaml_says_and_trains_what_torchrun_does(whole, place):
    outputs, timing = whole
    assert timing["machine"]["processes"] == 2
    (place.folder / "engine.yaml").unlink()
    status, said = place.run(*TORCHRUN, "-m", "storyforge.train.stage")
    assert status == 0, said
    assert place.outputs() == outputs


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], [*TORCHRUN, "--max-restarts=3"]], ids=["the stage", "torchrun"])
def test_a_killed_process_is_replaced_and_the_bytes_are_those_of_a_run_never_killed(whole, place, words):
    """By who started it."""
    status, said = place.run(*words, place.hurt('rank == "1" and os.kill(os.getpid(), signal.SIGKILL)'))
    assert status == 0, said
    assert place.outputs() == whole[0]
    assert ("process 1 of 2 ended with SIGKILL: all begin again, at most 3 times more" in said) != bool(words)


@pytest.mark.slow
@pytest.mark.parametrize("same_bits", [False, True])
def test_one_process_goes_on_with_the_run_of_two_where_its_bits_need_not_be_the_same(place, same_bits):
    """Without dropout, whose noise is of the processes, it comes to what two come to, but for rounding."""
    lora = TRAIN["lora"] | {"dropout": 0.0}
    place.choose(train=TRAIN | {"lora": lora, "checkpoint_every": 100, "same_bits": same_bits})
    assert place.run("-m", "storyforge.train.stage") == (0, "")
    two = place.outputs()
    stopped = place.run(place.hurt('rank == "1" and os.kill(os.getpid(), signal.SIGTERM)'))
    assert stopped == (128 + signal.SIGTERM, "") and place.saved() == 4

    (place.folder / "engine.yaml").write_text("gpus: 1\n")
    process = place.start("-m", "storyforge.train.stage")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    machine = json.loads((place.folder / "timing.json").read_text())["machine"]
    if same_bits:
        assert "machine.processes 2 → absent" in said and "resumed" not in said
        assert "processes" not in machine
    else:
        assert "resumed from step 4" in said and not list(place.folder.glob("work/*"))
        assert machine["processes"] == {"1": 2, "5": 1}
    one = place.outputs()
    for name in ("train.tsv", "val.tsv"):
        curves = [
            [line.split("\t")[:2] for line in found[name].decode().splitlines()[1:]] for found in (one, two)
        ]
        for (step, loss), (other_step, other_loss) in zip(*curves, strict=True):
            assert step == other_step and float(loss) == pytest.approx(float(other_loss), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("to_parent", [False, True], ids=["to the second process", "to the parent"])
def test_a_stop_signal_ends_all_after_a_saved_step_and_the_next_run_goes_on(whole, place, to_parent):
    place.choose(train=TRAIN | {"checkpoint_every": 100})
    if to_parent:
        process = place.start(place.hurt("time.sleep(1)"))
        pids = place.children(process)
        process.terminate()
        said, status = process.communicate(timeout=120)[1], process.returncode
        assert gone(pids)
    else:
        status, said = place.run(place.hurt('rank == "1" and os.kill(os.getpid(), signal.SIGTERM)'))
    assert (status, said) == (128 + signal.SIGTERM, "")
    assert place.saved() == 4
    assert place.run("-m", "storyforge.train.stage")[0] == 0
    assert place.outputs() == whole[0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_kill_of_the_parent_leaves_no_process_and_its_checkpoint_is_gone_on_with(whole, place):
    place.choose(train=TRAIN | {"checkpoint_every": 100})
    process = place.start(place.hurt("time.sleep(1)"))
    pids = place.children(process)
    process.kill()
    process.communicate()
    assert gone(pids)
    assert place.saved() == 4
    assert place.run("-m", "storyforge.train.stage")[0] == 0
    assert place.outputs() == whole[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("raise stage.UserError(f'{rank}: wrong: mend it')", r"error: [01]: wrong: mend it\n"),
        ("rank == '1' and (mark.unlink(), os.kill(os.getpid(), signal.SIGKILL))", None),
    ],
    ids=["a mistake", "killed again and again"],
)
def test_what_ends_a_run_for_good_is_one_line(place, harm, said):
    """No mistake is tried again, and each of the processes may meet it."""
    status, told = place.run(place.hurt(harm))
    assert status == 1
    if said:
        assert re.fullmatch(said, told)
    else:
        lines = [line for line in told.splitlines() if line.startswith(("process 1", "error:"))]
        assert len(lines) == 4 and lines[-1].startswith(
            "error: process 1 of 2 ended with SIGKILL, after 3 restarts: what the processes said stands above"
        )
