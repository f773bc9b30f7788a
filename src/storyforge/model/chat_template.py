"""A chat format out of a model's own chat template: rendered with marks for texts, split at them, checked.

The template is a program that came with the model. transformers runs it in Jinja's sandbox, here on marks and
on the talks below alone; what it makes of them becomes data, and no story ever passes through it.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import GenerationConfig

from storyforge.core.errors import UserError
from storyforge.model.chat import ChatFormat, Messages, Piece, control, merged, render
from storyforge.model.encoding import Encoder

S, U, A, V = MARKS = ("qzSystemqz", "qzAskedqz", "qzRepliedqz", "qzAgainqz")  # no template has such words
TALK = [("user", U), ("assistant", A), ("user", V)]
JOINT = "\n\n"  # between the system's text and the user's where the template has no place for the first
YEAR = re.compile(r"\b(19|20)\d\d\b")
REPLY = "Rain fell.\n\n“Is that 7, or {text}?” he asked."  # as real as the check needs
CHECKS = (
    [("user", "Write the opening of a mystery.")],
    [("user", "Tell of {text} and é😀.\nNow."), ("assistant", REPLY), ("user", "Go on: 12,345 birds")],
)


class _Unsplit(Exception):
    """Why a template cannot be made data of."""


def from_template(tokenizer, stops: Iterable[str], system: str) -> ChatFormat:
    """The format of the tokenizer's own chat template; `stops` are the tokens that end a generation.

    UserError where the template writes what a `ChatFormat` cannot say.
    """
    try:
        if not tokenizer.chat_template:
            raise _Unsplit("the tokenizer has none")
        chat = _split(tokenizer, stops)
        _check(tokenizer, chat, system)
    except _Unsplit as reason:
        raise UserError(
            f"model.chat: auto: the model's chat template cannot be used: {reason}: choose a format of "
            "src/storyforge/model/chat.py, or add one"
        ) from None
    return chat


def ends(folder: Path, tokenizer) -> list[str]:
    """The tokens that end a generation, by the model's own settings; its tokenizer's where it has none."""
    numbers = None
    if (folder / "generation_config.json").is_file():
        numbers = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
    numbers = [numbers] if isinstance(numbers, int) else numbers or [tokenizer.eos_token_id]
    return [tokenizer.convert_ids_to_tokens(number) for number in sorted({*numbers} - {None})]


def _split(tokenizer, stops: Iterable[str]) -> ChatFormat:
    before, user_reply, reply_user, at_end = _cut(_said(tokenizer, TALK, opening=True), [U, A, V])
    after_user = _cut(_said(tokenizer, TALK[:1]), [U])[1]
    after_reply = _cut(_said(tokenizer, TALK[:2]), [U, A])[2]
    # Each stretch between two texts ends one turn and begins the next.
    opening = _rest(at_end, after_user)
    assistant = _rest(user_reply, after_user)
    user = _rest(reply_user, after_reply)
    bounds = {"user": (user, after_user), "assistant": (assistant, after_reply)}
    remarks, joint, place = [], "", "own"
    try:
        with_system = _said(tokenizer, [("system", S), *TALK], opening=True)
    except _Unsplit:
        begin, joint, place = _rest(before, user, end=True), JOINT, "first"
        remarks.append("the template takes no system text: it stands before the first prompt")
    else:
        begin, bounds["system"], joint, place, preamble = _system(tokenizer, with_system, bounds)
        if preamble:
            remarks.append(f"left out, since a date changes from day to day: {preamble!r}")
    if place != "own":
        bounds.pop("system", None)
    if _said(tokenizer, TALK, opening=True, thinking=True) != _said(tokenizer, TALK, opening=True):
        remarks.append("thinking blocks are switched off")
    if opening.count("<think>") > opening.count("</think>"):
        raise _Unsplit("every reply begins with a thinking block")
    split = _splitter(tokenizer)
    if not (ending := split(after_reply)[:1]) or not ending[0].control:
        raise _Unsplit(f"no control token ends a reply, but {after_reply!r}")
    end = ending[0].text
    found = {role: split(f"{start}{{text}}{stop}") for role, (start, stop) in bounds.items()}
    written = (begin, opening, *(text for bound in bounds.values() for text in bound))
    if dated := [text for text in written if YEAR.search(text)]:
        raise _Unsplit(f"it prints a date: {dated[0]!r}")
    stops = (end, *(token for token in stops if token != end))
    said = tuple(f"model.chat: auto: {remark}" for remark in remarks)
    return ChatFormat(split(begin), found, split(opening), end, stops, place, joint, said)


def _system(tokenizer, said: str, bounds: dict) -> tuple[str, tuple[str, str], str, str, str]:
    """What begins a text, the bounds of the system's turn, or joint and place, and the preamble cut off."""
    user, after_reply = bounds["user"][0], bounds["assistant"][1]
    order = sorted(MARKS, key=said.find)
    cuts = _cut(said, order)
    if order == [U, A, S, V] and cuts[2] == after_reply + user:
        return _rest(cuts[0], user, end=True), ("", ""), cuts[3], "last", ""
    if order != [S, U, A, V]:
        raise _Unsplit("the texts do not stand in their order")
    if cuts[0].endswith(user) and not cuts[1].endswith(user):
        return _rest(cuts[0], user, end=True), ("", ""), cuts[1], "first", ""
    bos = tokenizer.bos_token or ""
    begin = bos if cuts[0].startswith(bos) and not user.startswith(bos) else ""
    start, stop = cuts[0].removeprefix(begin), _rest(cuts[1], user, end=True)
    alike, preamble = user.replace("user", "system"), ""
    if start.startswith(alike) and YEAR.search(start):
        start, preamble = alike, start.removeprefix(alike)
    return begin, (start, stop), "", "own", preamble


def _check(tokenizer, chat: ChatFormat, system: str) -> None:
    """_Unsplit where talks are not written, or not tokenised, as the template and the tokenizer do."""
    encoder = Encoder(tokenizer, chat, system)
    preamble = _preamble(tokenizer, chat)
    for talk in CHECKS:
        messages = [("system", system), *talk]
        # Without a text for it, a template that has no turn of the system would write the joint alone.
        apart = chat.system_in != "own" and (not preamble[0] or not system)
        given = merged(chat, messages) if apart else messages
        theirs = _said(tokenizer, given, opening=True).replace(preamble[1], "", 1)
        ours = "".join(piece.text for piece in render(chat, messages))
        if ours != theirs:
            raise _Unsplit(f"a talk of {len(talk)} messages is not put together from its turns")
        *history, (_, asked) = talk
        prompt = encoder.prompt(asked, history)
        if prompt != _ids(tokenizer, theirs):
            raise _Unsplit("the tokenizer cuts texts otherwise beside control tokens than alone")
        # Where the system's text stands before the last prompt, it may go once that is answered.
        told = messages if chat.system_in == "own" else merged(chat, messages)
        whole = _said(tokenizer, [*told, ("assistant", REPLY)]).replace(preamble[1], "", 1)
        learned = [*prompt, *encoder.text(REPLY), encoder.end_of_turn]
        if _ids(tokenizer, whole)[: len(learned)] != learned:
            raise _Unsplit("a reply is not written right after the opening that asks for it")


def _preamble(tokenizer, chat: ChatFormat) -> tuple[bool, str]:
    """Whether the template takes a system text, and what it writes before it that the format leaves out."""
    try:
        start = _cut(_said(tokenizer, [("system", S), *TALK]), [S])[0]
    except _Unsplit:
        return False, ""
    if chat.system_in != "own":
        return True, ""
    ours = "".join(piece.text for piece in render(chat, [("system", S)])).partition(S)[0]
    return True, start.removeprefix(ours)


def _said(tokenizer, messages: Messages, *, opening: bool = False, thinking: bool = False) -> str:
    try:
        return tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in messages],
            tokenize=False,
            add_generation_prompt=opening,
            enable_thinking=thinking,
        )
    except Exception as error:  # it is a program of others
        raise _Unsplit(" ".join(str(error).split())[:200] or type(error).__name__) from error


def _cut(said: str, marks: Sequence[str]) -> list[str]:
    """What stands before, between and after the marks, each there once and in this order."""
    parts = []
    for mark in marks:
        if said.count(mark) != 1:
            raise _Unsplit("it does not write each message once, as it is")
        part, _, said = said.partition(mark)
        parts.append(part)
    return [*parts, said]


def _rest(text: str, known: str, *, end: bool = False) -> str:
    """The text without what it must begin with, or end with."""
    if not (text.endswith(known) if end else text.startswith(known)):
        raise _Unsplit(f"a turn is written in more than one way: {known!r} is not in {text!r}")
    return text.removesuffix(known) if end else text.removeprefix(known)


def _splitter(tokenizer):
    """A function from text to pieces: the tokenizer's special tokens, and what stands between them."""
    added = (entry.content for entry in tokenizer.added_tokens_decoder.values() if entry.special)
    special = sorted({*added, *tokenizer.all_special_tokens}, key=lambda token: (-len(token), token))
    cut = re.compile(f"({'|'.join(map(re.escape, special))})" if special else "(?!)")
    return lambda text: tuple(
        control(part) if part in special else Piece(part) for part in cut.split(text) if part
    )


def _ids(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
