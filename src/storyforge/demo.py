"""The demo, a page in the browser (`make demo`): texts are shown as text, never as markup."""

import secrets
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import streamlit as st

from storyforge.core import before_torch as before_torch
from storyforge.commands import session, uploads
from storyforge.commands.continuing import joined
from storyforge.commands.repository import enter
from storyforge.commands.session import MAX_CHARACTERS, MAX_TOKENS, Reply, Request
from storyforge.commands.writers import ADAPTER, ALIGNED, TUNED, Writers, asked, named, sampling
from storyforge.core.errors import UserError
from storyforge.core.records import Prompt
from storyforge.model.params import ModelParams
from storyforge.report.page import plain

STYLE = Path(__file__).with_suffix(".css")
OWN = "Your own"
HELD_OUT = 4  # prompts of test stories, before those of data/prompts.yaml: what the model was trained for
MAX_SEED = 2**31
POLL_S = 0.2  # how often a waiting page asks for its turn
SLIDERS = {  # of the sampling params: label, least, most, step, help
    "temperature": ("Temperature", 0.0, 2.0, 0.05, "0: always the likeliest token."),
    "top_p": ("Top p", 0.05, 1.0, 0.05, "Lower: unlikely tokens are left out."),
    "max_new_tokens": ("Length", 10, MAX_TOKENS, 10, "Most tokens."),
}


@st.cache_resource(show_spinner="Loading the writers …")
def writers() -> Writers:
    """Base and every adapter under models/; the browser cannot name a folder."""
    warnings.simplefilter("ignore", FutureWarning)  # of libraries, about each other
    found = sorted(file.parent for file in ADAPTER.parent.glob("*/adapter_config.json"))
    return Writers(named(None, [folder for folder in found if folder != ADAPTER]))


@st.cache_resource
def queue() -> session.Queue:
    """One for all visitors."""
    return session.Queue()


def page() -> None:
    st.set_page_config("StoryForge", layout="wide")
    st.html(STYLE)
    st.title("StoryForge", anchor=False)
    try:
        enter()
        st.caption(about(ready := writers()))
        prompts = [each for each in asked([], least_held_out=HELD_OUT) if len(each.prompt) <= MAX_CHARACTERS]
        presets = {session.title(prompt): prompt for prompt in prompts}
        params, first = sampling({}), next(iter(presets))
    except UserError as error:
        st.error(plain(str(error)))
        yours()  # there may be no model yet
        return
    values = {
        key: max(least, min(getattr(params, key), most)) for key, (_, least, most, *_) in SLIDERS.items()
    }
    values |= {
        "seed": min(params.seed, MAX_SEED),
        "preset": first,
        "prompt": presets[first].prompt,
        "writers": [TUNED],
    }
    for key, value in (values | {"requests": [], "draft": "", "drafts": []}).items():
        st.session_state.setdefault(key, value)
    if (longer := st.session_state.pop("longer", None)) is not None:  # before the page has its text area
        st.session_state.draft = longer
    # Both are removed before the request is answered: if that fails, the next click starts from an idle page.
    request, error = st.session_state.pop("request", None), st.session_state.pop("error", None)
    going = st.session_state.pop("going", None)
    asking, drafting, adding = st.tabs(["From a prompt", "Go on from a text", "Your stories"])
    with asking:
        controls(ready, presets, busy=request is not None)
    with drafting:
        draft(busy=going is not None)
    with adding:
        yours()
    if error:
        st.error(plain(error))
    if request:
        answer(ready, request)
        st.rerun()
    if going is not None:
        with drafting:
            go_on(ready, going)
        st.rerun()
    with asking:
        history(st.session_state.requests)


def about(ready: Writers) -> str:
    """What the names of the writers mean."""
    base = ModelParams.load().name.rpartition("/")[2]
    more = ", aligned that adapter trained further by the principles" if ALIGNED in ready.names else ""
    return f"base is {base} unchanged, tuned the same model with the adapter trained here{more}."


def controls(ready: Writers, presets: Mapping[str, Prompt], *, busy: bool) -> None:
    off, state = {"disabled": busy}, st.session_state
    with st.container(border=True, key="controls"):
        left, right = st.columns(2)
        left.selectbox("Prompt", [*presets, OWN], key="preset", on_change=fill, args=(presets,), **off)
        label = "Writers, up to three side by side"
        right.pills(label, ready.names, key="writers", selection_mode="multi", **off)
        label = "What the story is about"
        st.text_area(label, key="prompt", max_chars=MAX_CHARACTERS, height=110, **off)
        with st.container(key="settings"):
            *sliders, last = st.columns(4)
        for place, (key, (label, least, most, step, about)) in zip(sliders, SLIDERS.items(), strict=True):
            place.slider(label, least, most, step=step, key=key, help=about, **off)
        about = "Same seed and settings, same text."
        last.number_input("Seed", 0, MAX_SEED, step=1, key="seed", help=about, **off)
        with st.container(horizontal=True):
            st.button("Write", type="primary", on_click=submit, args=(ready, presets), **off)
            st.button("Stop", disabled=not busy)  # any click interrupts the script that writes
            another = {"seed": secrets.randbelow(10_000)}
            st.button("Another seed", type="tertiary", on_click=state.update, kwargs=another, **off)


def fill(presets: Mapping[str, Prompt]) -> None:
    chosen = presets.get(st.session_state.preset)
    st.session_state.prompt = chosen.prompt if chosen else ""


def submit(ready: Writers, presets: Mapping[str, Prompt]) -> None:
    """An unchanged preset keeps its id, so that the same seed gives the text of the report."""
    state = st.session_state
    prompt = presets.get(state.preset)
    if prompt is None or prompt.prompt != state.prompt:
        prompt = Prompt(OWN, OWN, state.prompt)
    names = [name for name in ready.names if name in state.writers]  # base first, in whatever order clicked
    try:
        state.request = session.request(prompt, names, {key: state[key] for key in (*SLIDERS, "seed")})
    except UserError as error:
        state.error = str(error)


@contextmanager
def my_turn() -> Iterator[None]:
    """There is one model: the others wait, and see how many are before them."""
    note = st.empty()
    with queue().place() as ahead:
        while count := ahead():
            note.info(f"{count} before you: your story begins when theirs are written.")
            time.sleep(POLL_S)
        note.empty()
        yield


def answer(ready: Writers, request: Request) -> None:
    """Interrupted by a click, a closed page or an error, it is kept as far as it went."""
    requests = st.session_state.requests  # now: an interrupted script may not read its state any more
    try:
        with my_turn():
            places = show(request, "now")
            with closing(session.answer(ready, request)) as grown:
                for name in grown:
                    draw(places[name], request.replies[name])
    except UserError as error:
        st.session_state.error = str(error)
    finally:
        if any(reply != Reply() for reply in request.replies.values()):
            requests.insert(0, request)
            del requests[session.MAX_REQUESTS :]


def draft(*, busy: bool) -> None:
    """A text that a person and the tuned writer write by turns."""
    label = "The story so far: change it as you like; the last page is read"
    st.text_area(label, key="draft", max_chars=session.MAX_DRAFT, height=420, disabled=busy)
    off = {"disabled": busy or not st.session_state.drafts}
    with st.container(horizontal=True):
        st.button("Go on", type="primary", on_click=begin, disabled=busy)
        st.button("Try this part again", on_click=again, **off)
        st.button("Undo", on_click=undo, **off)
        st.button("Stop", key="stop", disabled=not busy)


def begin() -> None:
    """Noted here, since a text area that is switched off for the time of writing has no value."""
    st.session_state.going = st.session_state.before = st.session_state.draft
    st.session_state.drafts.append(st.session_state.draft)


def again() -> None:
    st.session_state.going, st.session_state.before = st.session_state.drafts[-1], st.session_state.draft
    st.session_state.seed = secrets.randbelow(10_000)


def undo() -> None:
    st.session_state.draft = st.session_state.drafts.pop()


def go_on(ready: Writers, text: str) -> None:
    """Interrupted by a click or an error, what was written until then is kept."""
    state, place, reply = st.session_state, (st.empty(), st.empty()), Reply()
    try:
        with my_turn():
            changes = {key: state[key] for key in (*SLIDERS, "seed")}
            with closing(session.continued(ready, text, changes)) as grown:
                for reply in grown:
                    draw(place, reply)
    except UserError as error:
        state.error = str(error)
    finally:
        state.longer = joined(text, reply.text) if reply.text else state.before
        if not reply.text and state.before == text:  # no part was added that could be undone
            state.drafts.pop()


def yours() -> None:
    """Files for data/my-stories, and what a training would make of all that is there."""
    label = "Stories to add to data/my-stories, on this machine; what is there is never changed"
    files = st.file_uploader(label, uploads.KINDS, accept_multiple_files=True, key="files")
    if st.button("Add them, and look at what is there"):
        try:
            with st.spinner("Reading …"):
                notes = uploads.stored((file.name, file.getvalue()) for file in files)
                numbers, said, command = uploads.outlook()
            st.session_state.outlook = "\n".join([*notes, *said]), numbers, command, ""
        except UserError as error:
            st.session_state.outlook = "", "", "", str(error)
    said, numbers, command, error = st.session_state.get("outlook", [""] * 4)
    if error:
        st.error(plain(error))
    elif numbers:
        st.subheader(numbers, anchor=False)
        st.text(said)
        st.caption("This command trains on them:")
        st.code(command, "bash")


def show(request: Request, key: str) -> dict[str, tuple]:
    """Prompt, then a column for each writer; gives the places of text and end, to be drawn in again."""
    with st.container(key=f"asked-{key}"):
        st.text(request.prompt.prompt)
    places = {}
    for column, (name, reply) in zip(st.columns(len(request.replies)), request.replies.items(), strict=True):
        with column.container(border=True):
            st.subheader(name, anchor=False)
            places[name] = st.empty(), st.empty()
        draw(places[name], reply)
    return places


def draw(place: tuple, reply: Reply) -> None:
    text, end = place
    text.text(reply.text)  # st.text renders no markup
    end.caption(reply.end)


def history(requests: list[Request]) -> None:
    """The last request open, those before it folded."""
    for number, each in enumerate(requests):
        label = f"{session.title(each.prompt)}, {' and '.join(each.replies)}, {each.settings}"
        if number == 0:
            st.caption(each.settings)
        with st.expander(label) if number else nullcontext():
            show(each, str(number))
    if requests:
        with st.container(horizontal=True):
            label, text = "Download all as Markdown", session.markdown(requests)
            st.download_button(label, text, "stories.md", "text/markdown", on_click="ignore")
            st.button("Clear", type="tertiary", on_click=requests.clear)


page()
