"""Exchange → token ids, the reply's span known by construction; several side by side as a batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from storyforge.core.errors import UserError
from storyforge.core.records import Exchange
from storyforge.model.chat import ChatFormat, render


@dataclass(frozen=True, slots=True)
class Encoded:
    """One exchange as tokens; the reply runs from `reply_start` to the end."""

    id: str
    source: str
    group: str
    ids: tuple[int, ...]
    reply_start: int
    reply_bytes: int  # of the story's text in UTF-8, the end token not counted
    shortened: bool  # the story or its prompt did not fit

    @property
    def reply_tokens(self) -> int:
        return len(self.ids) - self.reply_start


Item = tuple[Encoded, ...]  # what an objective weighs together: (story,), or (chosen, rejected)


class Encoder:
    """Turns exchanges into tokens of one model's chat format."""

    def __init__(self, tokenizer, chat: ChatFormat, system: str):
        self.tokenizer, self.chat, self.system = tokenizer, chat, system
        self.end_of_turn = self._control_id(chat.end_of_turn)
        self.stops = frozenset(map(self._control_id, chat.stops))

    def prompt(self, prompt: str, history: Iterable[tuple[str, str]] = ()) -> list[int]:
        """Everything up to where the reply begins; `history` holds earlier turns as (role, text)."""
        messages = [("system", self.system), *history, ("user", prompt)]
        ids: list[int] = []
        for piece in render(self.chat, messages):
            ids += [self._control_id(piece.text)] if piece.control else self.text(piece.text)
        return ids

    def exchange(self, exchange: Exchange, max_tokens: int, *, key: str = "train.max_tokens") -> Encoded:
        """At most `max_tokens`, a limit of params.yaml that `key` names.

        A longer story is cut, at a line where that keeps most of it, and loses its end token; a prompt of
        more than half that gives way first. UserError where not even then a word fits.
        """
        prompt = self.prompt(exchange.prompt)
        text, reply = self._fitted(exchange.story, max_tokens - len(prompt) - 1)
        asked = exchange.prompt
        if len(text) < len(exchange.story):
            asked, _ = self._fitted(asked, max_tokens // 2)
        if asked != exchange.prompt:
            prompt = self.prompt(asked)
            text, reply = self._fitted(exchange.story, max_tokens - len(prompt) - 1)
        if not reply:
            raise UserError(f"story {exchange.id}: {key} = {max_tokens} leaves no room for it: raise {key}")
        whole = len(text) == len(exchange.story)
        if exchange.ended and whole:
            reply = [*reply, self.end_of_turn]
        return Encoded(
            id=exchange.id,
            source=exchange.source,
            group=exchange.group,
            ids=(*prompt, *reply),
            reply_start=len(prompt),
            reply_bytes=len(text.encode()),
            shortened=not whole or asked != exchange.prompt,
        )

    def text(self, text: str) -> list[int]:
        """Plain text: what looks like a control token in it is spelled out, never obeyed."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def _control_id(self, token: str) -> int:
        number = self.tokenizer.convert_tokens_to_ids(token)
        if number is None or number == self.tokenizer.unk_token_id and token != self.tokenizer.unk_token:
            raise UserError(f"model.chat: the model has no token {token}: choose its own chat format")
        return number

    def _fitted(self, text: str, room: int) -> tuple[str, list[int]]:
        """The beginning of a text that `room` tokens hold, and its tokens; all of it where it fits."""
        ids = self.text(text)
        while len(ids) > room and text:
            # Guess from the share that fits, so that a long story takes a few rounds.
            text = _at_a_break(text[: len(text) * max(room, 0) // len(ids)])
            ids = self.text(text) if text else []
        return text, ids


def _at_a_break(text: str) -> str:
    """Up to its last line break, else its last space, else whole: what keeps at least half."""
    ends = (text.rfind(mark) for mark in "\n ")
    return text[: next((end for end in ends if 2 * end >= len(text) > 0), len(text))].rstrip()


@dataclass(frozen=True, slots=True)
class Batch:
    """Exchanges side by side, padded on the right: (rows, length)."""

    ids: Tensor
    target_rows: Tensor  # (reply tokens,) row and position whose hidden state predicts a reply token,
    target_positions: Tensor
    targets: Tensor  # (reply tokens,) and that token
    rows: tuple[Encoded, ...]


def collate(rows: Sequence[Encoded], device: torch.device | str) -> Batch:
    """Padding needs no mask: it lies to the right, where causal attention never looks from a real token.

    Targets come from spans, never from token ids: SmolLM2 pads with its end-of-turn token.
    """
    ids = torch.zeros(len(rows), max(len(row.ids) for row in rows), dtype=torch.long)
    where, positions, targets = [], [], []
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        where += [number] * row.reply_tokens
        positions += range(row.reply_start - 1, len(row.ids) - 1)  # position t predicts token t + 1
        targets += row.ids[row.reply_start :]
    parts = (torch.tensor(part, dtype=torch.long).to(device) for part in (where, positions, targets))
    return Batch(ids.to(device), *parts, rows=tuple(rows))


def singly(rows: Iterable[Encoded]) -> list[Item]:
    """Each row as an item of its own."""
    return [(row,) for row in rows]


def longest(item: Item) -> int:
    """Tokens of its longest row: what each row takes in a batch, with its padding."""
    return max(len(row.ids) for row in item)
