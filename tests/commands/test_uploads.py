"""Stories are stored as they came and never in place of another; what training would make of them is told."""

import shutil
from pathlib import Path

import pytest

from storyforge.commands import uploads
from storyforge.commands.uploads import FOLDER, outlook, stored
from storyforge.core.errors import UserError

ROOT = Path(__file__).parents[2]


def there() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.name != ".gitkeep"}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """What outlook reads of a clone, without stories."""
    for name in ("params.yaml", "recipes", "data/prompts.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def examples(repository):
    shutil.copytree(ROOT / "examples/my-stories", FOLDER)


def test_files_are_stored_as_they_came(repository):
    files = [
        ("a.txt", b"\xff\xfeone"),
        ("C:\\mine\\b.MD", b"two"),
        ("../../up.txt", b"three"),
        ("é.txt", b""),
    ]
    assert stored(files) == []
    assert there() == {"a.txt": b"\xff\xfeone", "b.MD": b"two", "up.txt": b"three", "é.txt": b""}


def test_no_file_takes_anothers_place_and_the_same_file_is_no_trouble(repository):
    stored([("a.txt", b"one")])
    said = "a.txt: another file of that name is there, and stays: rename this one"
    assert stored([("a.txt", b"one"), ("a.txt", b"two"), ("b.txt", b"three")]) == [said]
    assert there() == {"a.txt": b"one", "b.txt": b"three"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.pdf", "is of a kind that is not read"),
        ("a", "is of a kind that is not read"),
        ("", "is of a kind that is not read"),
        ("..", "is of a kind that is not read"),
        (".a.txt", "has a name that is not stored"),
        ("~$a.docx", "has a name that is not stored"),
        ("a\x1b[2J.txt", "has a name that is not stored"),
        ("a" * 300 + ".txt", "has a name that is not stored"),
    ],
)
def test_what_is_not_stored_is_named_and_the_rest_is_stored(repository, name, said):
    (line,) = stored([(name, b"one"), ("b.txt", b"two")])
    assert said in line and "\x1b" not in line
    assert there() == {"b.txt": b"two"}


def test_more_files_than_are_taken_at_once_are_said(repository, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_FILES", 2)
    (line,) = stored([(f"{n}.txt", b"one") for n in range(5)])
    assert "more than 2 files at once" in line and len(there()) == 2


def test_a_folder_that_takes_no_files_is_one_line(repository):
    FOLDER.parent.mkdir(exist_ok=True)
    FOLDER.write_text("a file")
    with pytest.raises(UserError, match="data/my-stories: .*not all was stored"):
        stored([("a.txt", b"one")])


def test_the_outlook_tells_files_works_time_and_command(examples):
    (FOLDER / "empty.txt").write_text("")
    (FOLDER / "scan.pdf").write_text("%PDF")
    files = sum(path.is_file() for path in FOLDER.rglob("*"))
    numbers, said, command = outlook()
    assert numbers.startswith(
        f"{files} files, {files - 3} read, 2 of the works held out, "
    )  # a README besides
    assert numbers.endswith(" steps at most, about 2 min on two cores with AVX512-BF16")
    assert any("1 file was not read: .pdf 1" in line for line in said) and said[-1].startswith(
        "13 works: 11 train"
    )
    assert command == "make recipe NAME=my-stories && make repro"
    assert not list(Path.cwd().glob("data/raw")) and not list(Path.cwd().glob("data/processed"))


def test_the_recipe_in_use_decides_where_it_has_own_stories(examples):
    text = (ROOT / "recipes/my-stories.yaml").read_text().replace("max_words: 440", "max_words: 5000")
    Path("params.yaml").write_text(text)
    numbers, said, command = outlook()
    assert command == "make repro"
    assert any("17 stories" in line for line in said)


def test_of_one_work_the_end_is_held_out(repository):
    story = " ".join(f"And on day {n} of the voyage they saw the island number {n * 7}." for n in range(900))
    stored([("novel.txt", story.encode())])
    assert outlook()[0].startswith("1 file, 1 read, an end held out, ")


def test_an_empty_folder_is_the_stages_own_line(repository):
    FOLDER.mkdir(parents=True)
    with pytest.raises(UserError, match="my-stories: no story: put .docx") as caught:
        outlook()
    assert "\n" not in str(caught.value)
