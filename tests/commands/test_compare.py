import re

from markdown_it import MarkdownIt

from storyforge.commands.compare import Answers, page, show
from storyforge.commands.writers import Writers, asked, how_it_ended, named, sampling
from storyforge.core.records import Prompt
from storyforge.report.page import BREAK, plain


def test_columns_side_by_side_hold_what_each_writer_wrote(adapter, storyforge, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lines = storyforge("compare", "A duel.", "--length", "5").stdout.splitlines()
    assert lines[0] == "yours: A duel."
    assert lines[2].split("  ")[0] == "base (5 tokens, cut)" and "tuned (5 tokens, cut)" in lines[2]


def test_in_a_narrow_terminal_writers_come_one_below_the_other(adapter, storyforge, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = storyforge("compare", "A duel.", "--length", "5").stdout.splitlines()
    assert lines[2] == "base (5 tokens, cut)" and "tuned (5 tokens, cut)" in lines


def test_the_page_has_the_standard_prompts_and_all_writers(adapter, older, storyforge, tmp_path):
    file = tmp_path / "page.md"
    done = storyforge("compare", "--adapter", str(older), "--markdown", str(file))
    text = file.read_text()
    assert done.stderr.endswith(f"2 prompts, 3 writers: {file}\n") and not done.stdout
    assert text.count("| base | tuned | older.1 |\n|---|---|---|\n") == 2
    assert "## Mystery\n\n> A bell rings in the fog.\n" in text


def test_the_aligned_writer_is_shown_where_there_is_one(aligned, storyforge, tmp_path):
    file = tmp_path / "page.md"
    storyforge("compare", "A duel.", "--markdown", str(file))
    assert "| base | tuned | aligned |\n" in file.read_text()


EVIL = "a\r\r# b\n```\n</table>\x1b[2J <script>alert(1)</script>\u2028\u202e![x](y) | \\"


def test_words_of_a_writer_are_no_markup():
    """Read as GitHub does, with HTML on: two headings of ours, one table, one quotation."""
    made = page(
        [Answers(Prompt("a", EVIL, EVIL), {EVIL: (EVIL, "9 tokens, cut"), "b": ("", "cut")})], Settings()
    )
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(made)
    ours = set("h1 h2 p blockquote table thead tbody tr th td br em".split())
    assert set(re.findall(r"</?(\w+)", html)) == ours
    assert (html.count("<h1>"), html.count("<h2>"), html.count("<td>")) == (1, 1, 2)
    assert not re.search("[\x1b\r\u2028\u202e]", made) and "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_names_and_words_of_a_writer_steer_no_terminal(capsys, monkeypatch):
    for columns in ("120", "40"):
        monkeypatch.setenv("COLUMNS", columns)
        show(
            [Answers(Prompt("a", "kind", EVIL), {f"[bold]{EVIL}": (f"[red]{EVIL}", "cut"), "b": ("", "cut")})]
        )
        said = capsys.readouterr().out
        assert "[bold]a" in said and "[red]a" in said and "\\x1b" in said
        assert not re.search("[\x1b\r\u2028\u202e]", said)


def test_a_prompt_beyond_the_context_is_refused_before_anything_is_written(adapter, storyforge):
    said = storyforge("compare", "A duel.", "word " * 200, status=1).stderr
    assert said.endswith(
        "a reply of 12 are more than the 512 tokens that the model reads: shorten the prompt or the reply\n"
    )
    assert re.search(r"error: a prompt of 1,0\d\d tokens", said)


class Settings:
    def model_dump(self):
        return {"top_p": 0.9}


def test_compare_asks_as_sample_does(adapter, storyforge, monkeypatch):
    """The same prompt and seed: the same text as by `sample` and in the report."""
    (written,) = Writers(named(None)).write("base", asked(["A duel."]), sampling({"seed": 5}))
    file = adapter / "page.md"
    storyforge("compare", "A duel.", "--seed", "5", "--markdown", str(file))
    assert how_it_ended(written.tokens, written.ended) in file.read_text()
    assert plain(written.text, BREAK) in file.read_text()
