"""The page: without a browser by Streamlit's own means, and once in a real one."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import browser
import pytest
import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.testing.v1 import AppTest

from storyforge.commands import session, uploads
from storyforge.commands.writers import Delta, Writers, asked, named, sampling
from storyforge.core.errors import UserError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "src/storyforge/demo.py"
HTML = "<b>bold</b> **bold** $x$ <script>alert(1)</script>"


@pytest.fixture
def demo(clone):
    """The page, opened; the model is loaded anew for each test."""
    st.cache_resource.clear()
    yield AppTest.from_file(str(SCRIPT), default_timeout=60)
    st.cache_resource.clear()


def click(page, label):
    next(button for button in page.button if button.label == label).click()
    return page.run()


def said(page):
    """Stories and their prompts, as plain text."""
    assert not page.exception
    return [text.value for text in page.text]


def written(*prompts, names=("tuned",), more=(), **changes):
    ready, params = Writers(named(None, more)), sampling(changes)
    return [ready.write(name, [prompt], params)[0].text for prompt in prompts for name in names]


def test_a_preset_gives_the_text_of_the_report(demo, adapter):
    page = click(demo.run(), "Write")
    prompt, *_ = asked([], least_held_out=1)
    assert said(page) == [prompt.prompt, *written(prompt)]


def test_another_preset_fills_in_its_prompt(demo, adapter):
    page = demo.run()
    assert page.selectbox(key="preset").options == [
        "Held out: …Tell of 8 birds.",  # what the model was trained for
        "Mystery: fog bell",
        "Romance: last rose",
        "Your own",
    ]
    page.selectbox(key="preset").select("Romance: last rose").run()
    assert page.text_area(key="prompt").value == "He keeps the last rose."
    assert said(click(page, "Write"))[1:] == written(asked([])[1])
    page.selectbox(key="preset").select("Your own").run()
    assert page.text_area(key="prompt").value == ""


def test_a_free_prompt_and_all_settings_reach_the_writer(demo, adapter):
    page = demo.run()
    page.text_area(key="prompt").set_value("A duel.")
    page.slider(key="temperature").set_value(1.5)
    page.slider(key="top_p").set_value(0.5)
    page.slider(key="max_new_tokens").set_value(20)
    page.number_input(key="seed").set_value(5)
    wanted = asked(["A duel."])[0]
    wanted = type(wanted)("Your own", "Your own", wanted.prompt)
    settings = {"temperature": 1.5, "top_p": 0.5, "max_new_tokens": 20, "seed": 5}
    assert said(click(page, "Write")) == ["A duel.", *written(wanted, **settings)]


def test_the_aligned_writer_is_offered_and_explained(demo, aligned):
    page = demo.run()
    assert page.pills(key="writers").options == ["base", "tuned", "aligned"]
    assert page.caption[0].value.endswith("aligned that adapter trained further by the principles.")


def test_three_writers_stand_side_by_side_base_first(demo, older):
    page = demo.run()
    assert page.pills(key="writers").options and page.pills(key="writers").value == ["tuned"]
    page.pills(key="writers").set_value(["older.1", "tuned", "base"])
    page = click(page, "Write")
    names = ("base", "tuned", "older.1")
    assert [each.value for each in page.subheader] == list(names)
    texts = written(asked([], least_held_out=1)[0], names=names, more=[older])
    assert said(page)[1:] == texts and len(set(texts)) == 3


def test_older_stories_are_folded_and_clear_forgets_them(demo, adapter):
    page = click(click(demo.run(), "Write"), "Another seed")
    page = click(page, "Write")
    assert len(said(page)) == 4 and len(page.expander) == 1
    assert page.expander[0].label.startswith(
        "Held out: …Tell of 8 birds., tuned, temperature 1, top p 0.95, seed 11"
    )
    assert page.download_button[0].label == "Download all as Markdown"
    page = click(page, "Clear")
    assert said(page) == [] and not page.download_button


def test_no_more_stories_are_kept_than_the_cap(demo, adapter, monkeypatch):
    monkeypatch.setattr(session, "MAX_REQUESTS", 2)
    page = demo.run()
    for _ in range(3):
        page = click(page, "Write")
    assert len(page.expander) == 1


def test_what_is_written_is_never_markup(demo, adapter, monkeypatch):
    def stream(*_):
        yield Delta(HTML, 9, True)

    monkeypatch.setattr(Writers, "stream", stream)
    page = demo.run()
    page.text_area(key="prompt").set_value(HTML)
    page = click(page, "Write")
    assert said(page) == [HTML, HTML]
    others = [*page.markdown, *page.caption, *page.subheader, *page.expander, *page.get("html")]
    assert not any("bold" in str(getattr(each, "value", each)) for each in others)


def test_an_empty_reply_is_kept_and_says_how_it_ended(demo, adapter, monkeypatch):
    monkeypatch.setattr(Writers, "stream", lambda *_: (delta for delta in [Delta("", 1, True)]))
    page = click(demo.run(), "Write")
    assert "1 tokens, ended by itself" in [each.value for each in page.caption]


@pytest.mark.parametrize(
    ("prompt", "writers", "complaint"),
    [
        (" ", ["base"], "no prompt: say what the story is about"),
        ("A duel.", [], "0 writers: choose one to 3"),
        ("rain " * 100, ["base"], "a reply of 12 are more than the 512 tokens that the model reads"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(demo, adapter, prompt, writers, complaint):
    page = demo.run()
    page.text_area(key="prompt").set_value(prompt)
    page.pills(key="writers").set_value(writers)
    page = click(page, "Write")
    (error,) = page.error
    assert complaint in error.value and "\n" not in error.value and said(page) == []
    assert not next(button for button in page.button if button.label == "Write").disabled


def test_a_prompt_beyond_the_cap_is_cut_to_it(demo, adapter):
    page = demo.run()
    page.text_area(key="prompt").set_value("x" * 2001).run()
    assert page.text_area(key="prompt").value == "x" * 2000


def test_a_missing_model_names_the_command_that_makes_it(demo):
    page = demo.run()
    (error,) = page.error
    assert error.value == r"models/tuned: no adapter there: run \`dvc repro train\`"
    assert [each.label for each in page.button] == ["Add them, and look at what is there"]
    assert not page.exception


def test_the_model_may_come_after_the_page(demo, request):
    assert demo.run().error
    request.getfixturevalue("adapter")
    assert len(said(click(demo.run(), "Write"))) == 2


def test_a_waiting_visitor_sees_how_many_are_before_them(demo, adapter, monkeypatch):
    queue, seen = session.Queue(), []
    monkeypatch.setattr(session, "Queue", lambda: queue)
    page = demo.run()
    with ExitStack() as other:
        other.enter_context(queue.place())
        monkeypatch.setattr(DeltaGenerator, "info", lambda _, text: (seen.append(text), other.close()))
        page = click(page, "Write")
    assert seen == ["1 before you: your story begins when theirs are written."] and len(said(page)) == 2


def test_an_error_is_no_markup(demo, adapter, monkeypatch):
    def fail(*_):
        raise UserError("**models/a_b_c**: [no](http://x.example) $ink$")
        yield

    monkeypatch.setattr(session, "answer", fail)
    (error,) = click(demo.run(), "Write").error
    assert error.value == r"\*\*models/a\_b\_c\*\*: \[no\](http\://x.example) \$ink\$"


def test_an_error_of_one_story_lets_the_next_be_written(demo, adapter, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(Writers, "stream", lambda *_: (_ for _ in ()).throw(UserError("No ink.")))
        assert [error.value for error in click(demo.run(), "Write").error] == ["No ink."]
    assert len(said(click(demo, "Write"))) == 2


# --- in a browser ---------------------------------------------------------------------------------


@contextmanager
def served(clone):
    """Where the demo of the clone is, started as by `make demo`."""
    shutil.copytree(ROOT / ".streamlit", clone / ".streamlit")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "streamlit", "run", str(SCRIPT), "--server.port", str(port), "--server.headless", "true"]
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    server = subprocess.Popen(
        [sys.executable, *command], cwd=clone, env=os.environ | {"PYTHONPATH": path, "HOME": str(clone)}
    )
    try:
        end = time.monotonic() + 60
        while not listening("127.0.0.1", port):
            assert server.poll() is None and time.monotonic() < end, "the server does not start"
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def listening(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_in_a_browser_a_story_is_written_and_writers_are_compared(clone, adapter, tmp_path):
    with served(clone) as port, browser.opened(f"http://127.0.0.1:{port}", tmp_path / "browser") as page:
        assert not listening("127.0.0.2", port), "other addresses than 127.0.0.1 are served"
        page.type("textarea", "<img src=nowhere onerror='document.title=1'> # A duel")
        page.click("Write")
        page.wait("document.body.innerText.includes('12 tokens, cut')")
        texts = "[...document.querySelectorAll('[data-testid=stText]')].map(each => each.innerText)"
        assert page.js(f"{texts}[0]") == "<img src=nowhere onerror='document.title=1'> # A duel"
        assert page.js("document.querySelectorAll('img[src=nowhere]').length") == 0

        page.click("base")
        page.click("Write")
        page.wait("document.querySelectorAll('[data-testid=stExpander]').length == 1")  # the first story's
        page.wait("document.body.innerText.split('12 tokens, cut').length == 3")
        base, tuned = page.js(f"{texts}.slice(1, 3)")
        assert base != tuned
        assert page.js("[...document.querySelectorAll('h3')].slice(0, 2).map(h => h.innerText)") == [
            "base",
            "tuned",
        ]
        boxes = "[...document.querySelectorAll('h3')].slice(0, 2).map(h => h.getBoundingClientRect())"
        assert page.js(f"{boxes}[0].top == {boxes}[1].top && {boxes}[0].right < {boxes}[1].left")

        page.click("Download all as Markdown")
        file, end = tmp_path / "browser" / "stories.md", time.monotonic() + 30
        while not file.exists():
            assert time.monotonic() < end, "nothing was downloaded"
            time.sleep(0.1)
        assert file.read_text().count("### tuned\n") == 2 and file.read_text().count("### base\n") == 1

        page.screenshot(tmp_path / "phone.png", 390, 844, mobile=True)
        page.wait(f"{boxes}[0].bottom < {boxes}[1].top")  # one below the other
        assert page.js("document.documentElement.scrollWidth") == 390


@pytest.mark.slow
@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_in_a_browser_a_stopped_story_is_kept(clone, older, tmp_path):
    params = clone / "params.yaml"
    params.write_text(params.read_text().replace("max_new_tokens: 12", "max_new_tokens: 400"))
    with served(clone) as port, browser.opened(f"http://127.0.0.1:{port}", tmp_path / "browser") as page:
        page.click("base")
        page.click("older.1")
        page.click("Write")
        page.wait("document.body.innerText.includes('tokens …')")
        page.click("Stop")
        page.click("Download all as Markdown")  # it comes once nothing is being written
        assert page.js("document.body.innerText.includes('tokens …')")
        assert page.js("document.body.innerText.includes('not begun')")


def test_a_text_is_written_on_tried_again_and_undone(demo, adapter):
    page = demo.run()
    page.text_area(key="draft").set_value("A boat came in.")
    first = click(page, "Go on").text_area(key="draft").value
    assert not page.exception
    assert first.startswith("A boat came in.\n\n") and len(first) > len("A boat came in.\n\n\n")
    second = click(page, "Go on").text_area(key="draft").value
    assert second.startswith(first.rstrip()) and len(second) > len(first)
    other = click(page, "Try this part again").text_area(key="draft").value
    assert other.startswith(first.rstrip()) and other != second
    assert click(page, "Undo").text_area(key="draft").value == first
    assert click(page, "Undo").text_area(key="draft").value == "A boat came in."
    assert next(button for button in page.button if button.label == "Undo").disabled


def test_a_text_that_is_empty_is_said_and_can_be_begun(demo, adapter):
    page = click(demo.run(), "Go on")
    assert [error.value for error in page.error] == ["no text: write a first sentence"]
    page.text_area(key="draft").set_value("A boat came in.")
    assert len(click(page, "Go on").text_area(key="draft").value) > len("A boat came in.")


def test_stories_are_taken_and_what_training_makes_of_them_is_shown(demo, adapter, monkeypatch):
    monkeypatch.setattr(
        uploads, "outlook", lambda: ("2 files, 2 read", ["folder: **2** stories"], "make repro")
    )
    page = demo.run()
    page.file_uploader[0].upload("a.txt", b"one", "text/plain").run()
    page = click(page, "Add them, and look at what is there")
    assert Path("data/my-stories/a.txt").read_bytes() == b"one"
    assert [each.value for each in page.subheader] == ["tuned", "2 files, 2 read"][1:]
    assert said(page) == ["folder: **2** stories"] and page.code[0].value == "make repro"


def test_stories_are_taken_before_there_is_a_model(demo, monkeypatch):
    def fail():
        raise UserError("no story: put some there")

    monkeypatch.setattr(uploads, "outlook", fail)
    page = click(demo.run(), "Add them, and look at what is there")
    assert [error.value for error in page.error][1:] == ["no story: put some there"]
