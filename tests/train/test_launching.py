"""recipes/launch: the batch script, between a Slurm and a torchrun that are not there; the task, read."""

import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from ruamel.yaml import YAML

LAUNCH = Path(__file__).parents[2] / "recipes/launch"
# Each says that it was called; the step runs until it is told to stop, or ends with what the test has chosen.
FAKES = {
    "srun": 'exec "$@"',
    "torchrun": """
trap 'exit "$AFTER_TERM"' TERM
[ -z "$STATUS" ] || exit "$STATUS"
echo $$ > running
while :; do sleep 0.05; done""",
    "scancel": 'kill -TERM "$(cat running)"',
    # Two writes, the second after whoever wants the first line alone has gone.
    "scontrol": '[ "$1" = requeue ] || { echo node-7; sleep 0.1; echo node-8; }',
    "dvc": "",
}


@pytest.fixture
def batch(tmp_path):
    """Starts the script on two nodes; gives its process, and the commands that it called."""
    tools = tmp_path / ".venv/bin"
    tools.mkdir(parents=True)
    for name, body in FAKES.items():
        tool = tools / name
        tool.write_text(f'#!/bin/bash\necho "{name} $*" >> called\n{body}\n')
        tool.chmod(0o755)

    def start(status="", after_term="1"):
        slurm = {"SLURM_JOB_NODELIST": "node-[7-8]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "31"}
        env = os.environ | slurm | {"STATUS": status, "AFTER_TERM": after_term}
        return subprocess.Popen(["bash", LAUNCH / "train.sbatch"], cwd=tmp_path, env=env)

    start.called = lambda: (tmp_path / "called").read_text().splitlines()
    start.running = tmp_path / "running"
    return start


@pytest.mark.parametrize(("status", "then"), [("0", ["dvc commit -f train"]), ("3", [])])
def test_a_finished_run_is_committed_and_a_failed_one_is_not_begun_again(batch, status, then):
    assert batch(status).wait(30) == int(status)
    assert batch.called()[3:] == then


@pytest.mark.parametrize(
    ("after_term", "last"), [("1", "scontrol requeue 31"), ("0", "dvc commit -f train")], ids=["", "finished"]
)
def test_a_run_whose_time_is_over_is_told_so_and_queued_again_unless_it_was_at_its_end(
    batch, after_term, last
):
    process = batch(after_term=after_term)
    while not (batch.running.exists() and batch.running.read_text()):
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == int(after_term)
    assert batch.called()[3:] == ["scancel --signal=TERM 31", last]


def test_torchrun_has_the_options_that_the_script_gives_it(batch):
    from torch.distributed.run import get_args_parser

    batch("0").wait(30)
    (line,) = [line for line in batch.called() if line.startswith("torchrun")]
    options = get_args_parser().parse_args(shlex.split(line)[1:])
    assert (options.nnodes, options.rdzv_endpoint, options.module) == ("2", "node-7:29500", True)
    assert options.training_script == "storyforge.train.stage" and len(options.training_script_args) == 6
    # It kills what has not ended then, and Slurm soon after that.
    assert options.shutdown_timeout < 120


def test_what_the_task_of_skypilot_runs_is_a_script():
    task = YAML(typ="safe").load(LAUNCH / "sky.yaml")
    for script in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n", "-c", script], check=True)
