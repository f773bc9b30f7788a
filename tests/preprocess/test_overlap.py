"""Training rows that share their text with held-out ones are found, whichever of the two is the larger."""

import random

import numpy as np

from storyforge.core.words import shingles
from storyforge.preprocess.overlap import Row, overlaps, sketch


def text(seed: int, count: int = 400) -> list[str]:
    return [f"w{number}" for number in random.Random(seed).choices(range(5000), k=count)]


def row(name: str, words: list[str], side: str = "train", work: str | None = None) -> tuple:
    return name, work or name, side != "train", sketch(shingles(words, 5))


def grounds(*rows: tuple) -> list[tuple]:
    works = {work: number for number, work in enumerate({work: None for _, work, _, _ in rows})}
    return list(overlaps(Row(number, works[work], *known) for number, (_, work, *known) in enumerate(rows)))


def gone(*rows: tuple) -> set[str]:
    return {rows[number][0] for number, *_ in grounds(*rows)}


def test_texts_of_their_own_stay():
    assert gone(row("a", text(1)), row("b", text(2), "test"), row("c", text(3), "val")) == set()
    assert gone(row("a", text(1))) == gone(row("a", text(1), "val")) == set()


def test_half_a_window_of_a_held_out_row_goes():
    assert gone(row("a", text(1)[200:] + text(2)), row("b", text(1), "val")) == {"a"}


def test_a_row_that_holds_a_short_held_out_text_goes():
    assert gone(row("anthology", text(1) + text(2, 60) + text(3)), row("b", text(2, 60), "test")) == {
        "anthology"
    }


def test_a_row_whose_parts_stand_in_several_rows_of_a_held_out_work_goes():
    pieces = [row(f"b{n}", text(n, 2000), "test", "b") for n in range(1, 5)]
    parts = row("a", [word for n in range(1, 5) for word in text(n, 2000)[:60]] + text(9, 350))
    assert gone(parts, *pieces) == {"a"}
    assert grounds(parts, *pieces) == [(0, 1, False, True)]  # of the work, by its first row


def test_all_of_a_work_goes_that_is_a_draft_of_a_held_out_one():
    held_out = [row(f"b{n}", text(n), "test", "b") for n in range(4)]
    draft = [row(f"a{n}", text(n if n < 2 else n + 90), work="a") for n in range(4)]
    assert gone(*draft, *held_out) == {"a0", "a1", "a2", "a3"}
    rows = [(n, 4 + n, False, False) for n in (0, 1)] + [(n, 4, True, True) for n in (2, 3)]
    assert grounds(*draft, *held_out) == rows


def test_an_anthology_loses_what_is_held_out_and_no_more():
    anthology = [row(f"a{n}", text(n), work="a") for n in range(8)]
    assert gone(*anthology, row("b", text(3), "test")) == {"a3"}


def test_a_sketch_does_not_depend_on_the_order():
    words = shingles(text(1), 5)
    assert np.array_equal(sketch(sorted(words)), sketch(sorted(words, reverse=True)))
    assert 0.15 < len(sketch(words)) / len(words) < 0.35
