"""The one chat format of training, evaluation, demo and export: messages → text and control tokens."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a rendered chat: one control token by its name, or text that never becomes one."""

    text: str
    control: bool = False


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How a model was taught to read turns; `{role}` and `{text}` stand in the text pieces of a turn."""

    begin: tuple[Piece, ...]
    turn: tuple[Piece, ...]  # up to and including the text
    end_of_turn: str  # the control token a writer stops at
    between: str  # text after an ended turn
    stops: tuple[str, ...]  # every control token that ends a reply


def _control(token: str) -> Piece:
    return Piece(token, control=True)


FORMATS = {
    # ChatML as SmolLM2-Instruct uses it; no begin-of-text.
    "smollm2": ChatFormat(
        begin=(),
        turn=(_control("<|im_start|>"), Piece("{role}\n{text}")),
        end_of_turn="<|im_end|>",
        between="\n",
        stops=("<|im_end|>", "<|endoftext|>"),
    ),
    # Llama 3.1 model card. Its own template also prints a knowledge cut-off and a date: left out,
    # since a date would change the training text from day to day.
    "llama3": ChatFormat(
        begin=(_control("<|begin_of_text|>"),),
        turn=(
            _control("<|start_header_id|>"),
            Piece("{role}"),
            _control("<|end_header_id|>"),
            Piece("\n\n{text}"),
        ),
        end_of_turn="<|eot_id|>",
        between="",
        stops=("<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"),
    ),
}


def render(chat: ChatFormat, messages: Iterable[tuple[str, str]]) -> list[Piece]:
    """The turns (role, text), then the opening of the assistant's: a reply follows, then `end_of_turn`."""
    pieces = list(chat.begin)
    for role, text in messages:
        pieces += _turn(chat, role, text)
        pieces += [_control(chat.end_of_turn), Piece(chat.between)]
    # Neighbouring text becomes one piece, so that it is tokenised as the model's own template would be.
    merged: list[Piece] = []
    for piece in (*pieces, *_turn(chat, "assistant", "")):
        if merged and not piece.control and not merged[-1].control:
            merged[-1] = Piece(merged[-1].text + piece.text)
        elif piece.control or piece.text:
            merged.append(piece)
    return merged


def _turn(chat: ChatFormat, role: str, text: str) -> list[Piece]:
    """Replaced rather than formatted: a story may hold braces."""
    return [
        piece if piece.control else Piece(piece.text.replace("{role}", role).replace("{text}", text))
        for piece in chat.turn
    ]
