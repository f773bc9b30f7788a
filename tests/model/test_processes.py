"""How many processes a run has, and what of the work each does; tests/train starts them."""

from types import SimpleNamespace

import pytest

from storyforge.model import processes


@pytest.fixture
def started(tmp_path, monkeypatch):
    """What `launch_all` starts: the number of processes, or "here"."""
    for name in ("DVC_ROOT", "RANK", "STORYFORGE_ALLOW_CPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    found = []
    monkeypatch.setattr(processes, "_start", found.append)
    monkeypatch.setattr(processes, "launch", lambda main: found.append("here"))

    def start(visible, text=""):
        monkeypatch.setattr(processes.torch.cuda, "device_count", lambda: visible)
        (tmp_path / "engine.yaml").write_text(text)
        processes.launch_all(lambda: None)
        return found.pop()

    return start


@pytest.mark.parametrize(
    ("visible", "text", "count"),
    [
        (0, "", "here"),
        (1, "", "here"),
        (4, "", 4),
        (4, "gpus: 2", 2),
        (4, "gpus: 1", "here"),
        (0, "gpus: 1", "here"),
    ],
)
def test_a_process_for_each_gpu_unless_engine_yaml_says_fewer(started, visible, text, count):
    assert started(visible, text) == count


def test_what_torchrun_started_starts_nothing(started, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    assert started(4) == "here"


def test_more_than_there_are_is_one_line_but_for_a_cpu_that_is_allowed(started, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        started(1, "gpus: 2")
    error = capsys.readouterr().err
    assert ended.value.code == 1 and error.count("\n") == 1
    assert error.startswith("error: engine.yaml: gpus = 2, and torch finds 1: ")
    monkeypatch.setenv("STORYFORGE_ALLOW_CPU", "1")
    assert started(0, "gpus: 2") == 2


def test_every_batch_is_done_by_one_process_and_all_is_found_together(monkeypatch):
    def part(index, count):
        state = SimpleNamespace(process_index=index, num_processes=count)
        monkeypatch.setattr(processes, "PartialState", lambda: state)
        return {"losses": {batch: index for batch in processes.own("abcde")}, "texts": {}}

    assert part(0, 1) == {"losses": dict.fromkeys("abcde", 0), "texts": {}}
    each = [part(index, 2) for index in (0, 1)]
    monkeypatch.setattr(processes, "gather_object", lambda _: each)
    found = {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0}
    assert [processes.together(one) for one in each] == [{"losses": found, "texts": {}}] * 2
