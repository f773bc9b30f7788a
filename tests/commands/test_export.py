import json
import re
from types import SimpleNamespace

import pytest
import tiny
import torch

from storyforge.commands import export
from storyforge.export import merging, room
from storyforge.model import loading

FILE = "gguf/tuned-f16.gguf"
MODELFILE = f"""FROM ./tuned-f16.gguf
{tiny.MODELFILE}PARAMETER temperature 1.0
PARAMETER top_k 0
PARAMETER top_p 0.95
PARAMETER min_p 0.0
PARAMETER repeat_penalty 1.1
PARAMETER repeat_last_n 12
PARAMETER num_predict 12
"""


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left(clone):
    """What an export that failed has left."""
    return sorted(path.name for path in (clone / "exports").glob("*"))


def test_an_export_says_what_it_measured_and_holds_both_forms(adapter, clone, storyforge):
    lines = storyforge("export").stdout.splitlines()[1:]
    assert lines[0].startswith("1 test stories of ") and lines[1].startswith("adapter  ")
    assert "greedy text the same 2 of 2 times" in lines[3] and lines[3].startswith("tuned-f16.gguf  ")
    assert lines[4] == "exports/tuned: export.json, gguf, manifest.json, merged"
    assert lines[5] == "next: cd exports/tuned/gguf && ollama create tuned -f Modelfile"
    folder = clone / "exports/tuned"
    assert (folder / "gguf/Modelfile").read_text() == MODELFILE
    assert (folder / "merged/model.safetensors").exists() and (folder / FILE).exists()
    record = json.loads((folder / "export.json").read_text())
    assert [form["name"] for form in record["forms"]] == ["merged", "tuned-f16.gguf"]
    assert abs(record["forms"][0]["loss"] - record["adapter_loss"]) < 0.02
    assert str(clone) not in (folder / "export.json").read_text()


def test_again_it_makes_the_same_bytes_in_place_of_the_old(adapter, clone, storyforge):
    storyforge("export")
    before = content(clone / "exports/tuned")
    storyforge("export")
    assert content(clone / "exports/tuned") == before and left(clone) == ["tuned"]


def test_weights_alone(adapter, clone, storyforge):
    storyforge("export", "--type", "none", "--to", "mine")
    assert sorted(path.name for path in (clone / "mine").iterdir()) == [
        "export.json",
        "manifest.json",
        "merged",
    ]


def test_a_merge_that_lost_the_adapter_is_refused_and_leaves_the_old_export(
    adapter, clone, storyforge, monkeypatch
):
    storyforge("export", "--type", "none")
    before = content(clone / "exports/tuned")
    monkeypatch.setattr(merging, "LoraLayer", type(None))  # no layer is known as one
    said = storyforge("export", "--type", "none", status=1)
    assert said.stderr.startswith("error: merged: loses ") and said.stderr.count("\n") == 1
    assert said.stderr.endswith("more than 0.02: nothing was exported\n")
    assert content(clone / "exports/tuned") == before and left(clone) == ["tuned"]


def test_a_file_that_lost_its_order_is_refused(adapter, clone, storyforge, monkeypatch):
    from storyforge.export import gguf_file

    monkeypatch.setattr(gguf_file, "interleaved", lambda name, weight, config: weight)
    assert "was read back 1" in storyforge("export", status=1).stderr
    assert left(clone) == []


def test_no_adapter_names_the_command_that_makes_one(clone, storyforge):
    said = storyforge("export", status=1).stderr
    assert said == "error: models/tuned: no adapter there: run `dvc repro train`\n"


def test_a_folder_that_is_no_export_is_left_alone(adapter, clone, storyforge):
    (clone / "mine").mkdir()
    (clone / "mine/diary.txt").write_text("Dear diary")
    (clone / "mine/export.json").write_text("{}")  # of another program
    said = storyforge("export", "--to", "mine", status=1).stderr
    assert "mine/diary.txt: no export of ours is recorded in" in said and "choose another --to" in said
    assert (clone / "mine/diary.txt").read_text() == "Dear diary"


def test_a_note_in_an_older_export_is_kept(adapter, clone, storyforge):
    storyforge("export", "--type", "none")
    (clone / "exports/tuned/notes.txt").write_text("my own")
    before = content(clone / "exports/tuned")
    said = storyforge("export", "--type", "none", status=1).stderr
    assert said.startswith(
        "error: exports/tuned/notes.txt: was not written by an export: choose another --to"
    )
    assert content(clone / "exports/tuned") == before


def test_what_is_put_there_while_an_export_runs_is_kept(adapter, clone, storyforge, monkeypatch):
    record = export.record

    def slow(*arguments):
        (clone / "mine").mkdir()
        (clone / "mine/notes.txt").write_text("my own")
        return record(*arguments)

    monkeypatch.setattr(export, "record", slow)
    assert "mine/notes.txt: " in storyforge("export", "--type", "none", "--to", "mine", status=1).stderr
    assert content(clone / "mine") == {"notes.txt": b"my own"}


def test_an_empty_folder_may_be_used(adapter, clone, storyforge):
    (clone / "mine").mkdir()
    storyforge("export", "--type", "none", "--to", "mine")


def test_an_interrupted_export_leaves_the_old_one(adapter, clone, storyforge, monkeypatch):
    storyforge("export", "--type", "none")
    before = content(clone / "exports/tuned")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "record", interrupted)
    storyforge("export", "--type", "none", status=130)
    assert content(clone / "exports/tuned") == before and left(clone) == ["tuned"]


def test_an_unknown_type_is_one_line(adapter, clone, storyforge):
    said = storyforge("export", "--type", "q2", status=1).stderr
    assert said == "error: --type q2: choose one of f16, q8_0, lora, none\n"


def test_a_type_that_only_llamacpp_makes_names_its_command(adapter, clone, storyforge):
    assert storyforge("export", "--type", "q4_k_m", status=1).stderr == (
        "error: --type q4_k_m: llama.cpp makes it of --type f16: "
        "`llama-quantize tuned-f16.gguf tuned-q4_k_m.gguf Q4_K_M`, see docs/EXPORT.md\n"
    )
    assert not (clone / "exports").exists()


def test_the_adapter_alone_is_measured_too(adapter, clone, storyforge):
    lines = storyforge("export", "--type", "lora").stdout.splitlines()[1:]
    assert lines[1].startswith("adapter  ") and lines[2].startswith("tuned-lora.gguf  ")
    assert "+0.0000 against adapter; greedy text the same 2 of 2 times" in lines[2]
    assert lines[3] == "exports/tuned: export.json, gguf, manifest.json"
    assert lines[4] == "next: llama-server -m BASE.gguf --lora exports/tuned/gguf/tuned-lora.gguf"


def test_an_adapter_whose_rows_lost_their_order_is_refused(adapter, clone, storyforge, monkeypatch):
    from storyforge.export import gguf_lora

    monkeypatch.setattr(gguf_lora, "interleaved", lambda name, weight, config: weight)
    said = storyforge("export", "--type", "lora", "--tolerance", "0", status=1).stderr
    assert said.startswith("error: tuned-lora.gguf: loses ") and left(clone) == []


def test_another_family_is_refused_before_anything_is_read(adapter, clone, storyforge, monkeypatch):
    from storyforge.model import bases, loading

    strange = SimpleNamespace(model_type="mamba")
    monkeypatch.setattr(bases, "described", lambda params: strange)
    monkeypatch.setattr(loading, "load_base", None)
    said = storyforge("export", "--type", "lora", status=1).stderr
    assert said.startswith("error: GGUF is written of ") and "not of mamba: use --type none" in said


def test_a_full_disk_is_noticed_before_anything_is_made(adapter, clone, storyforge, monkeypatch):
    monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 20))
    said = storyforge("export", status=1).stderr
    assert "GiB are needed and 0.0 are free: make room, or choose another disk by --to" in said
    assert not (clone / "exports").exists()


def test_what_it_takes_is_said_first(adapter, clone, storyforge):
    said = storyforge("export").stdout.splitlines()[0]
    memory = r"memory: about 1\.0 GiB for the files, 1\.0 GiB for measuring, [\d.]+ free"
    assert re.fullmatch(rf"{memory}; disk: 0\.1 GiB, [\d.]+ free", said)


@pytest.mark.parametrize(
    ("free", "stories", "said"),
    [
        (
            1 << 20,
            "24",
            "error: merging takes at least 1.0 GiB of memory and 0.0 are free: close other programs",
        ),
        (
            5 << 30,
            "24",
            "error: measuring takes at least 8.0 GiB of memory and 5.0 are free: give --stories 0",
        ),
        (5 << 30, "0", ""),
    ],
)
def test_too_little_memory_is_noticed_before_anything_is_made(
    free, stories, said, adapter, clone, storyforge, monkeypatch
):
    """A model said to have 2 Gi weights of a size each, in 32 bits."""
    if free > 1 << 20:
        many = SimpleNamespace(parameters=lambda: [SimpleNamespace(numel=lambda: 1 << 20)] * (1 << 11))
        monkeypatch.setattr(room, "empty_base", lambda params: (many, torch.float32))
        monkeypatch.setattr(room.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 40))
    monkeypatch.setattr(room, "_free", lambda: free)
    found = storyforge("export", "--stories", stories, status=1 if said else 0)
    assert found.stderr.startswith(said) and bool(said) != (clone / "exports").exists()


def test_nothing_is_loaded_where_no_stories_are_asked_for(adapter, clone, storyforge, monkeypatch):
    storyforge("export", "--to", "measured")
    monkeypatch.setattr(loading, "load_base", None)
    lines = storyforge("export", "--stories", "0", "--to", "mine").stdout.splitlines()[1:]
    assert lines[0].startswith("no test stories asked for: nothing is measured")
    assert [line.split("  ")[1].partition(";")[0] for line in lines[1:3]] == ["not measured"] * 2
    measured, mine = content(clone / "measured"), content(clone / "mine")
    for name in ("merged/model.safetensors", "gguf/tuned-f16.gguf", "gguf/Modelfile", "merged/config.json"):
        assert mine[name] == measured[name]
    assert json.loads(mine["export.json"])["adapter_loss"] is None


def test_an_adapter_alone_is_not_exported_unmeasured(adapter, clone, storyforge):
    assert "give at least 1" in storyforge("export", "--type", "lora", "--stories", "0", status=1).stderr


@pytest.mark.parametrize(
    ("text", "said"), [("", "train.jsonl are empty"), ("{}\n", "line 1: not a Exchange")]
)
def test_without_stories_to_measure_on_nothing_is_exported(text, said, adapter, clone, storyforge):
    for side in ("train", "test"):
        (clone / f"data/processed/{side}.jsonl").write_text(text)
    assert said in storyforge("export", status=1).stderr
    assert not (clone / "exports").exists()


def test_where_nothing_is_held_out_training_stories_are_read(adapter, clone, storyforge):
    (clone / "data/processed/test.jsonl").write_text("")
    storyforge("export", "--type", "none")
    assert (clone / "exports/tuned").exists()
