"""Writing on from the end of a text: the page that is read, and what --append may touch."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from storyforge import cli
from storyforge.commands import continuing
from storyforge.commands.writers import Delta
from storyforge.core.errors import UserError

TEXT = "The lamp went out at nine.\n\nShe counted the stairs again, and there was one more.\n"


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A clone with a story in it, and a writer that repeats what it was asked; its requests."""
    asked = []

    class Ready:
        names = ("base", "tuned")

        def encoded(self, prompt, params):
            asked.append(prompt)
            return [1], 0

        def stream(self, name, ids, params, seed):
            yield Delta("A door ", 2)
            yield Delta(f"stood open for {name}.", 6, ended=True)

    monkeypatch.setattr("storyforge.commands.repository.enter", lambda: None)
    monkeypatch.setattr("storyforge.commands.writers.named", lambda adapter: {"tuned": Path("models/tuned")})
    monkeypatch.setattr(
        "storyforge.commands.writers.loaded",
        lambda adapters, changes: (Ready(), type("Sampling", (), {"seed": 1, "max_new_tokens": 20})()),
    )
    monkeypatch.setattr(continuing, "page_words", lambda: (12, True))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text(TEXT, encoding="utf-8")
    return asked


def invoke(*words: str):
    return CliRunner().invoke(cli.app, ["continue", *words], prog_name="storyforge")


def test_only_the_new_passage_goes_to_stdout(written, tmp_path) -> None:
    done = invoke("story.txt")
    assert done.stdout == "A door stood open for tuned.\n"
    assert (tmp_path / "story.txt").read_text() == TEXT


def test_the_last_page_is_asked_for_as_training_asks(written) -> None:
    from storyforge.preprocess.prose import continuation_prompt

    invoke("story.txt")
    assert written == [continuation_prompt("She counted the stairs again, and there was one more.")]


@pytest.mark.parametrize(
    ("text", "between"), [(TEXT, "\n\n"), ("She opened the", " "), ('"Stay," he said."\n\n\n', "\n\n")]
)
def test_append_adds_a_paragraph_or_goes_on_in_the_sentence(written, tmp_path, text, between) -> None:
    (tmp_path / "story.txt").write_text(text, encoding="utf-8")
    assert invoke("story.txt", "--append").exit_code == 0
    wanted = f"{text.rstrip()}{between}A door stood open for tuned.\n"
    assert (tmp_path / "story.txt").read_text(encoding="utf-8") == wanted


@pytest.mark.parametrize(
    ("name", "content", "words", "says"),
    [
        ("none.txt", None, (), "there is no such file"),
        ("empty.txt", b" \n", (), "is empty"),
        ("old.txt", "Caf\xe9 noir. Un homme entre et s'assied.".encode("cp1252"), ("--append",), "UTF-8"),
        ("rows.jsonl", b'{"text": "one"}\n', (), "holds no one text"),
        ("broken.docx", b"PK rubbish", (), "broken.docx"),
        ("story.docx", b"PK rubbish", ("--append",), "story.docx"),
        ("nul.txt", b"a\0b", (), "nul.txt"),
    ],
)
def test_what_is_no_text_is_one_line(written, tmp_path, name, content, words, says) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = invoke(name, *words)
    assert done.exit_code == 1
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert content is None or (tmp_path / name).read_bytes() == content


def test_append_keeps_mark_line_ends_mode_and_link(written, tmp_path) -> None:
    """As Windows' editor saves a text, private, and reached by a link."""
    text = "The lamp went out.\r\n\r\nShe counted the stairs.\r\n"
    (tmp_path / "real.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "real.txt").chmod(0o600)
    (tmp_path / "link.txt").symlink_to("real.txt")
    assert invoke("link.txt", "--append").exit_code == 0
    assert (tmp_path / "link.txt").is_symlink()
    wanted = text.rstrip() + "\r\n\r\nA door stood open for tuned.\r\n"
    assert (tmp_path / "real.txt").read_bytes() == b"\xef\xbb\xbf" + wanted.encode()
    assert (tmp_path / "real.txt").stat().st_mode & 0o777 == 0o600


def test_a_text_changed_meanwhile_is_left_alone(tmp_path) -> None:
    file = tmp_path / "story.txt"
    file.write_text("changed")
    with pytest.raises(UserError, match="was changed while the passage was written"):
        continuing.add(file, TEXT, "more")
    assert file.read_text() == "changed"


def test_a_recipe_that_trains_no_pages_says_so(written, monkeypatch) -> None:
    monkeypatch.setattr(continuing, "page_words", lambda: (continuing.PAGE_WORDS, False))
    assert "not what it was trained for" in invoke("story.txt").stderr
