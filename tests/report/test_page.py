import re

import pytest

from storyforge.report.page import Answers, Folded, Heading, Picture, Points, Table, Text, markdown, page

EVIL = "<script>alert(1)</script> ![x](y) *a* `b` | c\r\r</table>\x1b[2J\u2028# d"
BLOCKS = [
    Heading(EVIL),
    Text(EVIL),
    Points([EVIL]),
    Table(["a", "b"], [[EVIL, "1"]]),
    Picture("loss", EVIL),
    Folded(EVIL, EVIL),
    Answers(EVIL, {"base": (EVIL, "cut"), "tuned": ("", "cut")}, EVIL),
]
PNGS = {"loss": (b"light", b"dark")}


def test_html_lets_no_word_of_others_become_markup():
    made = page(EVIL, BLOCKS, PNGS)
    assert "<script" not in made and "\x1b" not in made
    # the picture's caption is its alt text too
    assert made.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 12
    assert made.count("</table>") == 1


@pytest.mark.parametrize("block", [BLOCKS[at] for at in (0, 1, 2, 3, 4)])
def test_markdown_escapes_what_it_reads_as_markup(block):
    made = markdown([block])
    assert r"\<script\>" in made and r"\*a\*" in made and r"!\[x\](y)" in made
    assert re.search(r"(?<!\\)[<>*]", made) is None and "\x1b" not in made


def test_a_bar_in_a_cell_makes_no_further_column():
    head, rule, row = markdown([Table(["a", "b"], [["`x | y` | z", "1"]])]).splitlines()
    assert (head, rule) == ("| a | b |", "|---|---|")
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_answers_stay_on_one_line_of_markdown_so_that_no_blank_line_ends_their_table():
    made = markdown([BLOCKS[-1]])
    cells = [line for line in made.splitlines() if "<td" in line]
    assert len(cells) == 1 and cells[0].count("<td") == 2 and cells[0].endswith("</tr>")
    assert "&lt;script&gt;" in made and "<script" not in made and "<i>nothing</i>" in made
    assert "c<br><br>&lt;/table&gt;" in made


def test_no_fence_inside_folded_text_closes_it():
    made = markdown([Folded("choices", "a\n````\n</details>")])
    assert made.count("\n`````\n") == 2


def test_our_own_markup_is_kept_in_both_forms():
    block = Text("**Yes**, see `dvc.lock` of 1 < 2.")
    assert markdown([block]) == "**Yes**, see `dvc.lock` of 1 \\< 2.\n"
    assert "<p><strong>Yes</strong>, see <code>dvc.lock</code> of 1 &lt; 2.</p>" in page("t", [block], {})


def test_the_page_needs_no_other_file_and_runs_nothing():
    made = page("t", BLOCKS, PNGS)
    assert "default-src 'none'" in made
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', made)
    assert len(sources) == 2 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "@media(prefers-color-scheme:dark)" in made and 'name="viewport"' in made
