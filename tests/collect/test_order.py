"""Files stand in the order in which a reader would open them."""

import random

import pytest

from storyforge.collect.numbers import value
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
        [
            "a/Chapter Seven",
            "a/Chapter Seventeen",
            "a/Chapter Twenty",
            "a/chapter twenty-one",
            "a/Chapter Ninety",
        ],
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


def test_a_number_is_worth_the_same_in_words_in_roman_letters_and_in_digits():
    roman = ["I", "IV", "IX", "XVII", "XXI", "XL", "XC", "XCIX"]
    words = ["one", "Four", "NINE", "Seventeen", "Twenty-One", "forty", "ninety", "ninety nine"]
    assert [value(each) for each in roman] == [value(each) for each in words] == [1, 4, 9, 17, 21, 40, 90, 99]
    assert value("117") == 117 and value("CCCXCIX") == 399
