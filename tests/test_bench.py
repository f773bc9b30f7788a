"""The arithmetic of benchmarks/, and every case of gpu.py on a tiny model and a CPU."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
EVERY_CASE = """
import json, warnings
warnings.simplefilter("ignore")
from gpu import cases, name
from gpu_cases import KINDS
for case in cases():
    try:
        found = KINDS[case["kind"]](case, True)
    except ModuleNotFoundError as error:  # a peer, which `make bench` alone installs
        found = {"absent": error.name}
    print(json.dumps([name(case), found]), flush=True)
"""


def loaded(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


@pytest.fixture
def figures(monkeypatch):
    return loaded("figures", monkeypatch)


@pytest.fixture
def gpu(monkeypatch):
    return loaded("gpu", monkeypatch)


@pytest.fixture
def env():
    paths = f"{ROOT / 'src'}{os.pathsep}{BENCHMARKS}"
    return {**os.environ, "PYTHONPATH": paths, "STORYFORGE_ALLOW_CPU": "1", "OMP_NUM_THREADS": "1"}


TINY = {
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "vocab_size": 100,
}


def test_products_are_the_linear_layers_and_the_head(figures):
    # A block: q and o 8 × 8, k and v 8 × 2, gate, up and down 8 × 16. Then the head. No norms, no embedding.
    assert figures.products(TINY) == 3 * (2 * 64 + 2 * 16 + 3 * 128) + 800


def test_heads_may_be_wider_than_their_share_of_the_model(figures):
    assert figures.products({**TINY, "head_dim": 4}) == 3 * (2 * 128 + 2 * 32 + 3 * 128) + 800


def test_a_single_token_attends_to_itself_alone(figures):
    assert figures.flops_a_token(TINY, [1]) == 4 * figures.products(TINY) + 12 * 3 * 8


def test_attention_costs_by_the_pairs_that_see_each_other(figures):
    # Stories of 1 and 3 tokens have 1 + 6 pairs, over 4 tokens.
    attention = figures.flops_a_token(TINY, [1, 3]) - 4 * figures.products(TINY)
    assert attention == 12 * 3 * 8 * 7 / 4


def test_spread_is_the_median_and_the_least(figures):
    assert figures.spread([3.0, 1.0, 2.5]) == "2.50 (least 1.00)"


def test_an_engine_that_takes_too_long_for_a_step_is_ended_and_says_so(monkeypatch, tmp_path):
    race = loaded("race", monkeypatch)
    asleep = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    engine = race.Engine("slow", "A slow one", tmp_path / "job", tmp_path)
    monkeypatch.setattr(race.Engine, "_started", lambda self: asleep)
    monkeypatch.setattr(race, "PATIENCE", 0.2)
    engine.turn()
    assert engine.error == "a step takes more than 0.2 s" and asleep.poll() is not None
    engine.turn()  # the others go on without it
    assert engine.answers == []


def test_columns_of_a_table_line_up(figures):
    assert figures.table(["", "rate"], [["ours", "7"], ["a peer", "11.5"]]).splitlines() == [
        "|        | rate |",
        "|--------|-----:|",
        "| ours   |    7 |",
        "| a peer | 11.5 |",
    ]


def test_what_goes_to_another_image_is_pinned_as_here():
    def pins(*files):
        lines = [line.partition(" ")[0] for file in files for line in file.read_text().splitlines()]
        return {line.rstrip(";").lower() for line in lines if "==" in line}

    carried = pins(BENCHMARKS / "requirements-gpu.txt")
    assert {line.partition("==")[0] for line in carried} >= {"transformers", "peft", "bitsandbytes"}
    assert carried <= pins(ROOT / "requirements.txt", ROOT / "constraints.txt")


def test_each_case_has_a_name_of_its_own_and_the_most_wanted_come_first(gpu):
    names = [gpu.name(case) for case in gpu.cases()]
    assert len(set(names)) == len(names) > 20 and names[0] == "speed/nf4/fused"
    kinds = {name.partition("/")[0] for name in names}
    assert kinds == {"speed", "trl", "repeat", "resume", "evaluate", "export"}
    assert {"speed/nf4/t4/sdpa/recomputed", "speed/nf4/efficient", "trl/nf4/efficient"} <= set(names)


def test_a_call_goes_on_where_the_one_before_ended(gpu, tmp_path):
    case, failed = list(gpu.cases())[:2]
    made_on = {"machine": "H100", "versions": {"torch": "2.13.0"}, "tiny": False}
    file = tmp_path / "cuda.json"
    assert gpu.kept(file, made_on) == {}
    cases = [case | {"tokens_per_second": 9.0}, failed | {"error": "no time left"}]
    file.write_text(json.dumps(made_on | {"cases": cases}))
    assert gpu.kept(file, made_on) == {gpu.name(case): cases[0]}
    assert gpu.kept(file, made_on | {"versions": {"torch": "2.14.0"}}) == {}


def test_the_share_of_the_limit_is_four_operations_a_weight_and_token_and_six_with_recomputation(gpu):
    case = {"kind": "speed", "weights": "nf4", "recomputed": True, "tokens_per_second": 10.0, "peak_gib": 7.2}
    weights = gpu.products(TINY)
    text = gpu.tables([case, {"kind": "resume", "weights": "nf4", "same_bits": True}], 80.0 * weights, TINY)
    row, bits = (line.split("|") for line in text.splitlines() if "nf4" in line)
    assert [cell.strip() for cell in row[1:-1]] == ["speed/nf4/recomputed", "10", "0.50", "0.75", "7.2"]
    assert bits[2].strip() == "the same bits"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_case_runs_on_a_tiny_model_without_a_gpu(gpu, env, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", EVERY_CASE], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=850
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(map(json.loads, done.stdout.splitlines()))
    assert list(found) == [gpu.name(case) for case in gpu.cases()]
    for name, told in found.items():
        kind, *rest = name.split("/")
        if "absent" in told:
            assert kind == "trl"
        elif "fused" in rest:
            assert told == {"error": "needs liger-kernel on Ampere or newer"}
        elif kind in ("repeat", "resume"):
            assert told == {"same_bits": True}, name
        elif kind == "export":
            assert told["seconds"] > 0 and told["host_peak_gib"] > 0
        else:
            assert told["tokens_per_second"] > 0 and told["peak_gib"] is None
    assert found["evaluate/nf4"]["written_per_second"] > 0


@pytest.mark.slow
def test_cases_are_chosen_by_name_and_a_failing_one_costs_its_row_alone(env, tmp_path):
    only = ["--only", "speed/nf4", "speed/nf4/fused"]
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--tiny", str(tmp_path), *only]
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=280)
    found = json.loads((tmp_path / "cuda.json").read_text())["cases"]
    assert [case["kind"] for case in found] == ["speed", "speed"]
    assert "error" in found[0] and found[1]["tokens_per_second"] > 0
    table = (tmp_path / "cuda.md").read_text()
    assert "needs liger-kernel" in table and "torch 2" in table.splitlines()[0]
