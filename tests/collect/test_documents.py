"""Documents of every kind give the same plain text; damaged and hostile ones give a reason."""

import io
import random
import subprocess
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from storyforge.collect import documents, zips
from storyforge.collect.documents import converted
from storyforge.collect.reading import Unusable

MARKDOWN = """---
title: The Salt Road
author: Ann Lee
---

# Chapter One

“Hello,” *she said* -- it’s **late**.[^1]

He didn’t answer.

***

Rain came.

[^1]: A note of the editor.
"""
TEXT = "# Chapter One\n\n“Hello,” *she said* – it’s late.\n\nHe didn’t answer.\n\n***\n\nRain came."
WORD = rb"""{\rtf1\ansi\ansicpg1252\uc1\deff0{\fonttbl{\f0 Times;}}{\info
{\title The Salt Road}{\author Ann Lee}}
\pard \u8220\'93Hello,\u8221\'94 \i she said\i0  \emdash  it\rquote s late.\par
He didn\u8217?t answer \u1055?\u1086?.\par}"""
APPLE = rb"""{\rtf1\ansi\ansicpg1252\cocoartf2639
{\fonttbl\f0\froman\fcharset0 Palatino;}
\pard\fi360\pardirnatural
\f0\fs26 \cf0 \'93Hello,\'94 she said \'97 it\'92s late. \uc0\u1055 \u1086 .\
He didn\'92t answer.\
\
Rain \i came \i0 down.}"""


@pytest.fixture(scope="module")
def program():
    found = documents.pandoc()
    assert found, "requirements-dev.txt brings pypandoc_binary"
    return found


@pytest.fixture(scope="module")
def made(program):
    """made(".docx"): a document of MARKDOWN, as bytes."""

    def make(suffix: str, text: str = MARKDOWN) -> bytes:
        form = ["--from", "markdown", "--to", documents.FORMATS[suffix], "--standalone"]
        command = [program, *form, "--output", "-"]
        return subprocess.run(command, input=text.encode(), capture_output=True, check=True).stdout

    return make


@pytest.mark.parametrize("suffix", [".docx", ".epub", ".odt", ".html"])
def test_every_kind_gives_the_same_plain_text(suffix, made, program):
    text, about = converted(made(suffix), suffix, program)
    got = text.decode().strip()
    got = got.removeprefix("# The Salt Road").removeprefix("The Salt Road").strip()  # a page's own title line
    got = got.removeprefix("Ann Lee").strip()
    assert got == (TEXT.replace("***\n\n", "") if suffix == ".odt" else TEXT)
    assert (
        about.get("title", "The Salt Road") == "The Salt Road" and about.get("author", "Ann Lee") == "Ann Lee"
    )


def test_rich_text_of_word_loses_no_character_after_an_escaped_one(program):
    text, about = converted(WORD, ".rtf", program)
    assert text.decode().strip() == "“Hello,” *she said* — it’s late.\n\nHe didn’t answer По."
    assert (about["title"], about["author"]) == ("The Salt Road", "Ann Lee")


def test_rich_text_of_apples_programs_keeps_its_paragraphs(program):
    text, _ = converted(APPLE, ".rtf", program)
    assert (
        text.decode().strip()
        == "“Hello,” she said — it’s late. По.\n\nHe didn’t answer.\n\nRain *came* down."
    )


def test_page_in_another_encoding_is_read(program):
    said = "“It’s the café,” she said – “again…”"
    page = f"<html><body><img src='x.png' alt='A picture'><p>{said}</p></body></html>".encode("cp1252")
    assert converted(page, ".html", program)[0].decode().strip() == said


def test_two_line_breaks_end_a_paragraph(program):
    assert converted(b"One.<br><br>Two.<br>\n<br/>Three,<br>four.", ".html", program)[0] == (
        b"One.\n\nTwo.\n\nThree,\nfour.\n"
    )


def test_element_that_is_not_closed_takes_nothing_with_it(program):
    assert converted(b"<nav><p>One.</p><p>Two.</p>", ".html", program)[0] == b"One.\n\nTwo.\n"


def test_of_several_articles_none_is_chosen(program):
    page = b"<article><p>One.</p></article><article><p>Two.</p></article>"
    assert converted(page, ".html", program)[0] == b"One.\n\nTwo.\n"


def test_struck_out_text_is_dropped_and_a_table_gives_its_cells(program):
    page = b"<p>It was <s>dark</s> late.</p><table><tr><th>One.</th><td>Two.</td></tr></table>"
    assert converted(page, ".html", program)[0].replace(b"  ", b" ") == (b"It was late.\n\nOne.\n\nTwo.\n")


AO3 = """<html><head><title>The Well - Ann - Original</title></head><body>
<div id="preface"><p><b>Posted originally on the <a href="x">Archive of Our Own</a> at
<a href="x">x</a>.</b></p>
<div class="meta"><dl><dt>Rating:</dt><dd>General</dd></dl><h1>The Well</h1><div>by Ann</div>
<p>Notes</p><blockquote><p>Thanks!</p></blockquote></div></div>
<div id="chapters"><div class="meta group"><h2 class="heading">Chapter 1</h2><p>Chapter Notes</p></div>
<div class="userstuff"><p>The well stood in the yard.</p></div></div>
<div id="afterword"><p>Please <a href="x">drop by the Archive and comment</a>!</p></div></body></html>"""


def test_an_archives_frame_around_a_work_is_taken_off_and_a_novels_preface_is_not(program):
    text, about = converted(AO3.encode(), ".html", program)
    assert (text.decode().strip(), about["frame"]) == ("# The Well\n\nThe well stood in the yard.", True)
    text, about = converted(AO3.replace("Archive of Our Own", "web").encode(), ".html", program)
    assert "Thanks!" in text.decode() and "frame" not in about


def test_a_page_fetches_nothing(program):
    asked = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        page = f'<p>One.</p><iframe src="{address}/a.html"></iframe><img src="{address}/b.png">'
        assert converted(page.encode(), ".html", program)[0].strip() == b"One."
        server.shutdown()
    assert asked == []


@pytest.mark.parametrize("suffix", [".docx", ".odt", ".epub", ".rtf", ".html"])
def test_damaged_document_is_read_or_has_a_reason(suffix, made, program):
    """Seeded mutations: bytes changed, cut off, doubled; whatever comes is a text or Unusable."""
    whole = WORD if suffix == ".rtf" else made(suffix)
    rng = random.Random(suffix)
    for _ in range(25):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 10, 100))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        start = rng.randrange(len(data))
        data = rng.choice((data, data[:start], data[start:], data + data[start:]))
        try:
            text, about = converted(bytes(data), suffix, program)
            assert isinstance(text.decode(), str) and isinstance(about, dict)
        except Unusable as reason:
            assert (
                str(reason) in ("damaged", "invalid_utf8", "too_long", "encrypted")
                and "\n" not in reason.detail
            )


def bomb(size: int) -> bytes:
    held = io.BytesIO()
    with (
        zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as zipped,
        zipped.open("word/document.xml", "w") as file,
    ):
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return held.getvalue()


def test_zip_bomb_is_not_unpacked(program, monkeypatch):
    """By the guard of a `.zip`: one that packs too well, and one that is too large."""
    with pytest.raises(Unusable, match="too_long"):
        converted(bomb(9 << 20), ".docx", program)
    monkeypatch.setattr(zips, "MAX_RATIO", 10_000)
    with pytest.raises(Unusable, match="damaged"):  # no document is in it
        converted(bomb(9 << 20), ".docx", program)
    monkeypatch.setattr(zips, "MAX_UNPACKED_BYTES", 8 << 20)
    with pytest.raises(Unusable, match="too_long"):
        converted(bomb(9 << 20), ".docx", program)


def test_conversion_ends_within_its_time_and_its_memory(program, monkeypatch):
    long = ("<p>" + "Word after word of the rain. " * 15 + "</p>\n").encode() * 1500
    monkeypatch.setattr(documents, "MAX_SECONDS", 0.1)
    with pytest.raises(Unusable) as caught:
        converted(long, ".html", program)
    assert (str(caught.value), caught.value.detail) == ("damaged", "pandoc did not end in 0.1 s")
    monkeypatch.undo()
    monkeypatch.setattr(documents, "MAX_HEAP", "16m")
    with pytest.raises(Unusable) as caught:
        converted(long, ".html", program)
    assert "heap" in caught.value.detail.lower()


def test_without_the_package_there_is_no_pandoc(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pypandoc", None)
    assert documents.pandoc() is None
