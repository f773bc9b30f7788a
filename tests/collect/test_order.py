"""Files stand in the order in which a reader would open them."""

import random

import pytest

from storyforge.collect.order import natural


@pytest.mark.parametrize(
    "names",
    [
        [f"novel/Chapter {number}.txt" for number in range(1, 13)],
        ["Part I.md", "Part II.md", "Part IV.md", "Part IX.md", "Part X.md", "Part XL.md"],
        ["a/Chapter One.txt", "a/Chapter Two.txt", "a/Chapter Ten.txt", "a/Chapter Twelve.txt"],
        ["Chapter Six.md", "Chapter Nineteen.md", "Chapter Twenty-One.md", "chapter sixty two.md"],
        ["Part thirty_nine.md", "Part Forty.md", "Part Forty One.md", "Part ninety-nine.md"],
        ["Sea - Prologue.txt", "Sea - Chapter 2.txt", "Sea - Chapter 11.txt", "Sea - Epilogue.txt"],
        ["2/1.txt", "2/10.txt", "10/1.txt", "b.txt"],
        ["The Sea.docx", "The Sea 2.docx", "The Sea 10.txt"],
    ],
)
def test_names_are_sorted_as_they_are_read(names):
    shuffled = random.Random(1).sample(names, len(names))
    assert sorted(shuffled, key=natural) == names


def test_any_name_has_a_place():
    names = ["9" * 5000, "", "/", "MIX", "CIVIL", "١٢.txt", "x\U0010ffff", "1a", "a1", "-1"]
    assert len(sorted(names, key=natural)) == len(names)
