"""The one chat format of training, evaluation, demo and export: messages → text and control tokens."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Messages = Iterable[tuple[str, str]]  # (role, text)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a rendered chat: one control token by its name, or text that never becomes one."""

    text: str
    control: bool = False


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a model was taught to read turns; `{text}` stands once in the text pieces of each turn."""

    begin: tuple[Piece, ...]
    turns: Mapping[str, tuple[Piece, ...]]  # of each role, from its first to its last token
    opening: tuple[Piece, ...]  # of the assistant's turn, where a reply is asked for
    end_of_turn: str  # the control token a writer stops at
    stops: tuple[str, ...]  # every control token that ends a reply
    # The turn whose text the system's stands before, with `joint` between; `own`: it has a turn.
    system_in: Literal["own", "first", "last"] = "own"
    joint: str = ""
    remarks: tuple[str, ...] = field(default=(), compare=False)  # what of the model's own format is left out

    @property
    def control_tokens(self) -> set[str]:
        pieces = (*self.begin, *self.opening, *(piece for turn in self.turns.values() for piece in turn))
        return {piece.text for piece in pieces if piece.control} | set(self.stops)


def control(token: str) -> Piece:
    return Piece(token, control=True)


def _filled(pieces: Iterable[Piece], slot: str, text: str) -> tuple[Piece, ...]:
    """Replaced rather than formatted: a story may hold braces."""
    return tuple(piece if piece.control else Piece(piece.text.replace(slot, text)) for piece in pieces)


def turns_alike(*pieces: Piece) -> dict[str, tuple[Piece, ...]]:
    """The turns of a format in which roles differ by their name alone, `{role}`."""
    return {role: _filled(pieces, "{role}", role) for role in ("system", "user", "assistant")}


FORMATS = {
    # ChatML as SmolLM2-Instruct uses it; no begin-of-text.
    "smollm2": ChatFormat(
        begin=(),
        turns=turns_alike(
            control("<|im_start|>"), Piece("{role}\n{text}"), control("<|im_end|>"), Piece("\n")
        ),
        opening=(control("<|im_start|>"), Piece("assistant\n")),
        end_of_turn="<|im_end|>",
        stops=("<|im_end|>", "<|endoftext|>"),
    ),
    # Llama 3.1 model card. Its own template also prints a knowledge cut-off and a date: left out,
    # since a date would change the training text from day to day.
    "llama3": ChatFormat(
        begin=(control("<|begin_of_text|>"),),
        turns=turns_alike(
            control("<|start_header_id|>"),
            Piece("{role}"),
            control("<|end_header_id|>"),
            Piece("\n\n{text}"),
            control("<|eot_id|>"),
        ),
        opening=(
            control("<|start_header_id|>"),
            Piece("assistant"),
            control("<|end_header_id|>"),
            Piece("\n\n"),
        ),
        end_of_turn="<|eot_id|>",
        stops=("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
    ),
}


def render(chat: ChatFormat, messages: Messages) -> list[Piece]:
    """The turns, then the opening of the assistant's: a reply follows, then `end_of_turn`."""
    pieces = list(chat.begin)
    for role, text in merged(chat, messages):
        pieces += _filled(chat.turns[role], "{text}", text)
    # Neighbouring text becomes one piece, so that it is tokenised as the model's own template would be.
    joined: list[Piece] = []
    for piece in (*pieces, *chat.opening):
        if joined and not piece.control and not joined[-1].control:
            joined[-1] = Piece(joined[-1].text + piece.text)
        elif piece.control or piece.text:
            joined.append(piece)
    return joined


def merged(chat: ChatFormat, messages: Messages) -> list[tuple[str, str]]:
    """The messages as turns: the system's text in a user's turn where the format has none for it."""
    messages = list(messages)
    if chat.system_in == "own" or not messages or messages[0][0] != "system":
        return messages
    system, *talk = messages
    asked = [place for place, (role, _) in enumerate(talk) if role == "user"]
    if system[1] and asked:
        place = asked[0 if chat.system_in == "first" else -1]
        talk[place] = ("user", system[1] + chat.joint + talk[place][1])
    return talk
