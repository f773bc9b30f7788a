import html

from storyforge.commands.compare import Answers, page
from storyforge.commands.writers import Writers, asked, how_it_ended, named, sampling
from storyforge.core.records import Prompt


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
    assert text.count("<tr><th>base</th><th>tuned</th><th>older.1</th></tr>") == 2
    assert "## Mystery\n\n> A bell rings in the fog.\n" in text


def test_words_of_a_writer_are_no_markup():
    texts = {"<b>": ("<script>alert(1)</script>\n# Big", "9 tokens, cut")}
    text = page([Answers(Prompt("a", "<i>", "1 < 2\n3"), texts)], Settings())
    assert "<script" not in text and "<i>" not in text and "<b>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;<br># Big" in text and "> 1 &lt; 2\n> 3" in text


class Settings:
    def model_dump(self):
        return {"top_p": 0.9}


def test_compare_asks_as_sample_does(adapter, storyforge, monkeypatch):
    """The same prompt and seed: the same text as by `sample` and in the report."""
    (written,) = Writers(named(None)).write("base", asked(["A duel."]), sampling({"seed": 5}))
    file = adapter / "page.md"
    storyforge("compare", "A duel.", "--seed", "5", "--markdown", str(file))
    assert how_it_ended(written.tokens, written.ended) in file.read_text()
    assert html.escape(written.text).replace("\n", "<br>") in file.read_text()
