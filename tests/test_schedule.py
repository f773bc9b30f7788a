"""Two workers share the suite by files: what a file builds is built once."""

import os
import subprocess
import sys
from pathlib import Path

FILE = """
import os
import pytest

@pytest.mark.parametrize("number", range(6))
def test_it(number):
    with open("{ran}", "a") as file:
        file.write(f"{name} {{os.environ['PYTEST_XDIST_WORKER']}}\\n")
"""


def test_a_file_stays_with_one_worker_and_the_longest_folder_comes_first(tmp_path):
    ran = tmp_path / "ran"
    for name in ("collect/test_a", "collect/test_b", "graph/test_pipeline", "graph/test_remotes"):
        file = tmp_path / "tests" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(FILE.format(ran=ran, name=name))
    command = f"{sys.executable} -m pytest -q -n 2 -p schedule -p no:cacheprovider --rootdir . tests".split()
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run(command, cwd=tmp_path, env=path, check=True)
    rows = [line.split() for line in ran.read_text().splitlines()]
    workers = {name: {worker for one, worker in rows if one == name} for name, _ in rows}
    assert len(rows) == 24 and all(len(those) == 1 for those in workers.values())
    assert workers["graph/test_pipeline"] == workers["graph/test_remotes"] != workers["collect/test_a"]
    first = [name for name, worker in rows if {worker} == workers["graph/test_pipeline"]]
    assert first[:12] == ["graph/test_pipeline"] * 6 + ["graph/test_remotes"] * 6
