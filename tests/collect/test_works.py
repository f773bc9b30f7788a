"""Files of one work are one group; in doubt they go together, but a numbered pile of stories is no book."""

import pytest

from storyforge.collect.works import title_work, work


@pytest.mark.parametrize(
    "names",
    [
        ("novel/01 storm.md", "novel/02 calm.md", "novel/notes/a.txt"),
        ("The Sea 01.docx", "The Sea 02.docx", "the_sea-03.txt", "The Sea.txt"),
        ("The Sea - Chapter 1.txt", "The Sea - Chapter 2, The Storm.txt", "the sea ch03.txt"),
        ("Chapter 1.md", "chapter two.md", "Chapter IV - Storm.md", "ch05.md", "Prologue.md"),
        ("Part 1/a.txt", "Part 2/b.txt"),
        ("Sea, Chapter Seventeen.txt", "Sea, Part Twenty-One.txt", "Sea chapter_thirty_two.txt"),
        ("Chapter Seventeen.md", "Chapter Twenty.md", "Chapter Twenty-One.md", "chapter_ninety_nine.md"),
        (
            "The Sea.docx",
            "The Sea (1).docx",
            "Copy of The Sea.docx",
            "The Sea - Copy.docx",
            "The Sea draft 2.docx",
        ),
        ("mine.zip/novel/1.txt", "mine.zip/novel/2.txt"),
        ("Caf\u00e9 1.txt", "Cafe\u0301 2.txt", "Caf\u00e9.txt"),
        (
            "Глава 1.txt",
            "глава 2.txt",
            "Kapitel 3.txt",
            "Chapitre IV.txt",
            "Capi\u0301tulo 5.txt",
            "第三章.txt",
        ),
        ("海 第1章.txt", "海第二章 風.txt", "海.txt"),
        ("The Sea 2024-03-01.txt", "The Sea 2024-04-02.txt", "The Sea.txt"),
    ],
)
def test_parts_and_copies_of_one_work_are_one_group(names):
    assert len({work(name, None) for name in names}) == 1, {name: work(name, None) for name in names}


@pytest.mark.parametrize(
    "names",
    [
        ("01.txt", "02.txt", "s1.txt", "s2.txt"),
        ("story 1.txt", "story 2.txt", "Story_03.txt", "untitled 4.docx", "Untitled document (5).docx"),
        ("Book Club.txt", "Book.txt", "The Part I Played.txt", "The Part.txt", "Henry IV.txt", "Henry.txt"),
        ("Part C.txt", "Part D.txt", "Chapter Twentysomething.txt", "Part Seventeenth Street.txt"),
        ("Part Seventeenth.txt", "Part Onerous.txt", "Part.txt"),
        ("1984 winter.txt", "Winter 1984.txt", "Winter.txt"),
        ("01 The Well.txt", "02 The Boat.txt"),
        ("a.zip/well.txt", "b.zip/well.txt", "well.txt"),
        ("novel/a.txt", "other/a.txt", "a.txt"),
        (
            "Flash fiction 01.txt",
            "Flash fiction 02.txt",
            "Short 4.txt",
            "Short 5.txt",
            "WIP 1.txt",
            "WIP 2.txt",
        ),
        ("Story 2024-03-01.txt", "Story 2024-03-02.txt", "Story 02.03.2024.txt", "Story 03.03.2024.txt"),
        ("one/Глава 1.txt", "two/Глава 1.txt", "one.zip/第1章.txt", "two.zip/第1章.txt"),
    ],
)
def test_separate_stories_stay_separate(names):
    assert len({work(name, None) for name in names}) == len(names), {name: work(name, None) for name in names}


def test_a_common_title_joins_files_whatever_their_names():
    assert work("a.txt", "The Sea") == work("b.docx", "The sea, Chapter 2") == work("The Sea 01.md", None)
    assert work("a.txt", "Chapter 3") == work("a.txt", "Untitled document") == work("a.txt", None)
    assert work("novel/a.txt", "The Sea") == "novel"
    assert {title_work(title) for title in ("Chapter 3", "Chapter", "Глава 3", "Kapitel", "第3章")} == {""}
    assert title_work("Cafe\u0301") == title_work("Caf\u00e9")
