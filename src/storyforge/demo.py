"""The demo, a page in the browser (`make demo`): what is written appears as text, never as markup."""

import secrets
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import streamlit as st

from storyforge.commands import session
from storyforge.commands.repository import enter
from storyforge.commands.session import Tale, Told, Turns
from storyforge.commands.writers import ADAPTER, TUNED, Writers, asked, named, sampling
from storyforge.core.errors import UserError
from storyforge.core.records import Prompt

STYLE = Path(__file__).with_suffix(".css")
OWN = "Your own"
POLL_S = 0.2  # how often a waiting visitor looks up
SETTINGS = ("temperature", "top_p", "max_new_tokens", "seed")


@st.cache_resource(show_spinner="Loading the writers …")
def writers() -> Writers:
    """Base and every adapter under models/; none can be named by the browser."""
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to each other, not to our user
    found = sorted(file.parent for file in ADAPTER.parent.glob("*/adapter_config.json"))
    return Writers(named(None, [folder for folder in found if folder != ADAPTER]))


@st.cache_resource
def turns() -> Turns:
    """One queue for all visitors: there is one model."""
    return Turns()


def page() -> None:
    st.set_page_config("StoryForge", layout="wide")
    st.html(STYLE)
    st.title("StoryForge", anchor=False)
    try:
        enter()
        st.caption(about())
        ready, presets = writers(), {session.title(prompt): prompt for prompt in asked([])}
        begin(presets)
    except UserError as error:
        st.error(str(error))
        return
    # Taken before it is told: if that fails, the next click starts from an idle page.
    wish, complaint = st.session_state.pop("wish", None), st.session_state.pop("complaint", None)
    controls(ready, presets, busy=wish is not None)
    if complaint:
        st.error(complaint)
    if wish:
        tell(ready, session.begin(wish))
        st.rerun()
    history(st.session_state.tales)


def about() -> str:
    from storyforge.model.loading import ModelParams

    name = ModelParams.load().name.rpartition("/")[2]
    return f"base is {name} as it came, tuned the same model with what it learned here."


def begin(presets: Mapping[str, Prompt]) -> None:
    """What the controls say before anybody has touched them: the settings of params.yaml."""
    state, params = st.session_state, sampling({})
    first = next(iter(presets))
    start = {
        "tales": [],
        "preset": first,
        "prompt": presets[first].prompt,
        "writers": [TUNED],
        "temperature": min(float(params.temperature), 2.0),
        "top_p": float(params.top_p),
        "max_new_tokens": min(params.max_new_tokens, session.MAX_TOKENS),
        "seed": params.seed,
    }
    for key, value in start.items():
        state.setdefault(key, value)


def controls(ready: Writers, presets: Mapping[str, Prompt], *, busy: bool) -> None:
    with st.container(border=True, key="controls"):
        left, right = st.columns(2)
        kinds = [*presets, OWN]
        left.selectbox("Prompt", kinds, key="preset", on_change=fill, args=(presets,), disabled=busy)
        right.pills(
            "Writers, up to three side by side",
            ready.names,
            key="writers",
            selection_mode="multi",
            disabled=busy,
        )
        st.text_area(
            "What the story is about",
            key="prompt",
            max_chars=session.MAX_CHARACTERS,
            height=110,
            disabled=busy,
        )
        settings(busy)
        with st.container(horizontal=True):
            st.button("Write", type="primary", on_click=want, args=(ready, presets), disabled=busy)
            st.button("Stop", disabled=not busy)  # any click ends what is being told
            st.button("Another seed", type="tertiary", on_click=roll, disabled=busy)


def settings(busy: bool) -> None:
    with st.container(key="settings"):
        heat, top_p, length, seed = st.columns(4)
    heat.slider(
        "Temperature", 0.0, 2.0, step=0.05, key="temperature", help="0: the likeliest word.", disabled=busy
    )
    top_p.slider("Top p", 0.05, 1.0, step=0.05, key="top_p", help="Leaves unlikely words out.", disabled=busy)
    length.slider(
        "Length", 10, session.MAX_TOKENS, step=10, key="max_new_tokens", help="Most tokens.", disabled=busy
    )
    seed.number_input(
        "Seed", 0, 2**31, step=1, key="seed", help="Same seed and settings, same text.", disabled=busy
    )


def fill(presets: Mapping[str, Prompt]) -> None:
    chosen = presets.get(st.session_state.preset)
    st.session_state.prompt = chosen.prompt if chosen else ""


def roll() -> None:
    st.session_state.seed = secrets.randbelow(10_000)


def want(ready: Writers, presets: Mapping[str, Prompt]) -> None:
    """A preset that was left as it is keeps its id: with the same seed, it draws as the report did."""
    state = st.session_state
    chosen = presets.get(state.preset)
    if chosen is None or chosen.prompt != state.prompt:
        chosen = Prompt(OWN, OWN, state.prompt)
    names = [name for name in ready.names if name in state.writers]  # base first, however they were clicked
    try:
        state.wish = session.wish(chosen, names, {key: state[key] for key in SETTINGS})
    except UserError as error:
        state.complaint = str(error)


def tell(ready: Writers, tale: Tale) -> None:
    """Broken off by a click, a closed page or an error, it is kept as far as it went."""
    tales = st.session_state.tales  # asked for now: once it is stopped, a script may not ask for its state
    note = st.empty()
    try:
        with turns().mine() as ahead:
            while count := ahead():
                note.info(f"{count} before you: your story begins when theirs are told.")
                time.sleep(POLL_S)
            note.empty()
            places = show(tale, "now")
            with closing(session.tell(ready, tale)) as grown:
                for name in grown:
                    draw(places[name], tale.told[name])
    except UserError as error:
        st.session_state.complaint = str(error)
    finally:
        if tale.begun:
            tales.insert(0, tale)
            del tales[session.MAX_TALES :]


def show(tale: Tale, key: str) -> dict[str, tuple]:
    """Prompt, then a column a writer; gives the places of text and end, to be drawn in again."""
    with st.container(key=f"asked-{key}"):
        st.text(tale.wish.prompt.prompt)
    places = {}
    for column, (name, told) in zip(st.columns(len(tale.told)), tale.told.items(), strict=True):
        with column.container(border=True):
            st.subheader(name, anchor=False)
            places[name] = st.empty(), st.empty()
        draw(places[name], told)
    return places


def draw(place: tuple, told: Told) -> None:
    """st.text knows no markup."""
    text, end = place
    text.text(told.text)
    end.caption(told.end)


def history(tales: Sequence[Tale]) -> None:
    """The last tale open, those before it folded."""
    for number, tale in enumerate(tales):
        with ExitStack() as stack:
            if number == 0:
                st.caption(tale.wish.settings)
            else:
                label = f"{session.title(tale.wish.prompt)}, {' and '.join(tale.told)}, {tale.wish.settings}"
                stack.enter_context(st.expander(label))
            show(tale, str(number))
    if tales:
        with st.container(horizontal=True):
            st.download_button(
                "Download all as Markdown",
                session.markdown(tales),
                "stories.md",
                "text/markdown",
                on_click="ignore",
            )
            st.button("Clear", type="tertiary", on_click=tales.clear)


page()
