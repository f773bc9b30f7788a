"""A split is read as one, however many files it is in; where they are cut depends on its bytes alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.core import splits
from storyforge.core.errors import UserError
from storyforge.core.files import dumps, write_json
from storyforge.core.records import Exchange
from storyforge.core.splits import read_split, split_files, write_split

ROWS = [Exchange(str(n), "folder", "g", "Begin.", "Once. " * n, ended=True) for n in (3, 1, 9, 40, 2, 2)]
LINES = [dumps(row).encode() + b"\n" for row in ROWS]


def written(folder: Path, lines) -> list[tuple[str, bytes]]:
    """As preprocess does."""
    if (count := write_split(folder, "train", iter(lines))) > 1:
        write_json(folder / "metadata.json", {"parts": {"train": count}})
    return [(path.name, path.read_bytes()) for path in sorted(folder.glob("*.jsonl"))]


@pytest.mark.parametrize("lines", [[], LINES])
def test_what_is_not_large_is_one_file(tmp_path, lines):
    assert written(tmp_path, lines) == [("train.jsonl", b"".join(lines))]
    assert split_files(tmp_path, "train") == [tmp_path / "train.jsonl"]


def test_as_large_as_a_part_may_be_is_one_file_and_a_byte_more_is_two(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "PART_BYTES", sum(map(len, LINES)))
    assert [name for name, _ in written(tmp_path, LINES)] == ["train.jsonl"]
    (more := tmp_path / "more").mkdir()
    assert written(more, [*LINES[:-1], b" " + LINES[-1]]) == [
        ("train-00000.jsonl", b"".join(LINES[:-1])),
        ("train-00001.jsonl", b" " + LINES[-1]),
    ]


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 60))
def test_parts_are_full_and_joined_they_are_all_lines(tmp_path_factory, lengths, most):
    folder, lines = tmp_path_factory.mktemp("parts"), [b"x" * (n - 1) + b"\n" for n in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splits, "PART_BYTES", most)
        names = [name for name, _ in written(folder, lines)]
    parts = [path.read_bytes() for path in split_files(folder, "train")]
    assert b"".join(parts) == b"".join(lines) and len(parts) == len(names)
    for part, following in zip(parts, parts[1:], strict=False):
        first = following[: following.index(b"\n") + 1]
        assert part.endswith(b"\n") and len(part) + len(first) > most
    assert all(len(part) <= most or part.count(b"\n") == 1 for part in parts)


def test_a_split_of_parts_is_read_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "PART_BYTES", 1)
    written(tmp_path, LINES * 2)
    assert list(read_split(tmp_path, "train")) == ROWS * 2
    (tmp_path / "train-00003.jsonl").write_bytes(b"{\n")
    with pytest.raises(UserError, match="train-00003.jsonl, line 1: not a Exchange"):
        list(read_split(tmp_path, "train"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: (folder / "train.jsonl").touch(), "train.jsonl"),
        (lambda folder: (folder / "train-00006.jsonl").touch(), "train-00006.jsonl"),
        (lambda folder: (folder / "train-000.jsonl").touch(), "train-000.jsonl"),
    ],
    ids=["one file beside parts", "one part too many", "of another name"],
)
def test_parts_that_are_no_whole_are_named(tmp_path, monkeypatch, change, named):
    monkeypatch.setattr(splits, "PART_BYTES", 1)
    written(tmp_path, LINES)
    change(tmp_path)
    with pytest.raises(UserError, match=f"{named}: does not belong with the others there: run `dvc repro"):
        split_files(tmp_path, "train")


@pytest.mark.parametrize("gone", [[0], [2], [5], [3, 4, 5]], ids=["first", "inner", "last", "all at the end"])
def test_the_first_part_that_is_missing_is_named(tmp_path, monkeypatch, gone):
    monkeypatch.setattr(splits, "PART_BYTES", 1)
    written(tmp_path, LINES)
    for number in gone:
        (tmp_path / f"train-{number:05}.jsonl").unlink()
    named = f"train-{gone[0]:05}.jsonl: missing, of 6 files of one split: `dvc checkout` brings it back, else"
    with pytest.raises(UserError, match=f"{named} `dvc repro preprocess`$"):
        list(read_split(tmp_path, "train"))


def test_a_missing_split_is_one_line(tmp_path):
    with pytest.raises(UserError, match="train.jsonl: No such file or directory: run `dvc repro`"):
        list(read_split(tmp_path, "train"))
