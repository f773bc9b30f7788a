import re
from html import unescape

import pytest
from markdown_it import MarkdownIt

from storyforge.report.page import BREAK, code, fenced, page, plain, quoted, table

EVIL = (
    "<script>alert(1)</script> <img src=x onerror=alert(1)> ![x](y) [x](javascript:y) *a* _b_ `c` | d\r\r"
    "</table>\x1b[2J\u2028# e\n```\n- f\n1. g\n&lt; <br> ~~h~~ $i$ \u202ej \\"
)
SEEN = "<script>alert(1)</script> <img src=x onerror=alert(1)> ![x](y) [x](javascript:y) *a* _b_ `c` | d"
PLACES = {
    "heading": lambda: f"# {plain(EVIL)}",
    "sentence": lambda: f"Of {plain(EVIL)}.",
    "list": lambda: f"- **{plain(EVIL)}**",
    "cell": lambda: table(["a", "b"], [[plain(EVIL, BREAK), "1"]]),
    "quote": lambda: quoted(EVIL),
    "code": lambda: f"From {code(EVIL)}.",
    "code in a cell": lambda: table(["a", "b"], [[code(EVIL), "1"]]),
    "block of code": lambda: fenced(EVIL),
}


def made(text, **pictures):
    return page("t", text, pictures, "")


def body(text, **pictures):
    return made(text, **pictures).partition("<main>\n")[2].removesuffix("</main>\n</body>\n</html>\n")


@pytest.mark.parametrize("place", PLACES)
def test_no_word_of_others_is_markup_in_the_page(place):
    html = body(PLACES[place]())
    ours = set("h1 p ul li strong table thead tbody tr th td blockquote code pre br".split())
    assert set(re.findall(r"</?(\w+)", html)) <= ours
    assert (
        unescape(re.sub("<[^>]+>", "", html)).strip().removeprefix("Of ").removeprefix("From ").find(SEEN)
        >= 0
    )
    assert "\x1b" not in html and "\u202e" not in html and "\r" not in html


@pytest.mark.parametrize("place", PLACES)
def test_no_word_of_others_is_markup_for_a_reader_of_markdown_that_takes_html(place):
    """As GitHub does: the file is read with html on, and only our <br> comes through."""
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(PLACES[place]())
    assert not re.search(
        r"<(?!/?(h1|p|ul|li|strong|table|thead|tbody|tr|th|td|blockquote|code|pre|br)\b)", html
    )
    assert "onerror=" in html and "<img" not in html and "href" not in html


@pytest.mark.parametrize(
    "start", ["- a", "+ a", "1. a", "12) a", "===", "---", "    a", "# a", "> a", "``` a", "| a |"]
)
def test_a_quote_begins_no_list_rule_heading_or_block(start):
    assert re.fullmatch(r"<blockquote>\n<p>[^<]*</p>\n</blockquote>\n", body(quoted(start)))
    assert unescape(body(quoted(start))).count(start.strip()) == 1


def test_an_address_in_a_story_is_no_link():
    assert plain("see https://there.example") == "see https\\://there.example"


def test_a_bar_in_a_cell_makes_no_further_column():
    head, rule, row = table(["a", "b"], [[code("x | y") + " " + plain("z | \\| w"), "1"]]).splitlines()
    assert (head, rule) == ("| a | b |", "|---|---|")
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    html = body("\n".join([head, rule, row]))
    assert html.count("<td>") == 2 and r"<code>x | y</code> z | \| w</td>" in html


def test_a_story_in_a_cell_keeps_its_lines():
    cell = table(["base", "tuned"], [[plain("One.\r\nTwo.\n\nThree.", BREAK), "x"]])
    assert len(cell.splitlines()) == 3
    assert "".join(body(cell).split("\n")).count("<td>One.<br />Two.<br /><br />Three.</td>") == 1


def test_a_break_that_a_writer_wrote_is_a_word():
    assert "a&lt;br&gt;b" in body(plain("a<br>b"))


def test_no_fence_inside_a_block_of_code_closes_it():
    assert body(fenced("a\n````\n# b")) == "<pre><code>a\n````\n# b\n</code></pre>\n"
    assert body(code("a ``` b")) == "<p><code>a ``` b</code></p>\n"


def test_headings_have_the_anchors_of_github():
    html = body("## What it writes\n\n### Scene\n\n### Scene\n\n### Every choice: params.yaml")
    assert re.findall(r'id="([^"]*)"', html) == [
        "what-it-writes",
        "scene",
        "scene-1",
        "every-choice-paramsyaml",
    ]


def test_the_page_needs_no_other_file_and_runs_nothing():
    html = page("<t>", "![loss](loss.png)", {"loss": b"png"}, "p { margin: 0 }\n")
    assert "default-src 'none'" in html and 'name="viewport"' in html
    assert re.findall(r'(?:src|srcset|href)="([^"]*)"', html) == ["data:image/png;base64,cG5n"]
    assert "<title>&lt;t&gt;</title>" in html and "<style>\np { margin: 0 }\n</style>" in html
