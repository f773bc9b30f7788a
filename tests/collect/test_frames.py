"""What stands around a story is told from it: nothing of the story goes, and nothing else stays."""

import time

import pytest

from storyforge.collect.frames import unframed

PROSE = "The well stood in the yard, and nobody drew from it.\n\n“Why?” she asked. Nobody knew."
WRAPPED = """The well stood in the middle of the yard, and nobody had drawn from it
since the summer when the two brothers quarrelled over the rope, as the
old woman told it to me by the stove, more than once, in the long, half-
lit evenings of that year.

Then the rain came and filled the yard from wall to wall, and the geese
walked about in it as though they owned it, which they did."""
VERSE = """I saw a gull upon the pier,
It looked at me with open fear,
The tide was out, the sand was grey,
It shook its wings and flew away."""


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        VERSE,
        "Stop!\n\nHe stopped.",
        "“Wait”\n\nHe waited.",
        "Part one of the plan was simple.\n\nPart two was not.",
        "He rang.\n\nBook the tickets.\n\nShe did.",
        "One.\n\n# # #\n\nTwo.\n\n***\n\nThree.",
        "It was 7.\n\n7\n\nNobody spoke.",
        "---\nnot: [yaml\n---\n\nHe ran.",
        "Rating: five stars, he thought.\n\nHe ran.",
        "- milk\n- bread\n\nThat was the list.",
        "He said she said that they said it again and again and then he said\nno.\n\nYes.",
        "# A title alone",
        "The miller forgot the blue door while the town slept, and the money was gone.\n" * 8,
        "“Where did you put the ladder?” she said, and he pointed at the barn door.\n"
        "“There,” he said. “It has been there all the time you were away at sea.”\n" * 4,
    ],
)
def test_a_story_that_stands_alone_is_left_as_it_is(text):
    framed = unframed(text, ".txt")
    assert (framed.text, framed.about, +framed.taken) == (text.rstrip("\n"), {}, {})


def test_front_matter_goes_to_what_is_said_of_the_story():
    head = (
        "---\ntitle: The Well\nauthors: [Ann, Bob]\ndate: 2021-03-04\ntags: [sea, rope]\nlayout: post\n---\n"
    )
    framed = unframed(head + PROSE, ".md")
    assert framed.text == PROSE
    assert framed.about == {
        "title": "The Well",
        "author": "Ann, Bob",
        "date": "2021-03-04",
        "tags": ["sea", "rope"],
    }


@pytest.mark.parametrize(
    "head",
    [
        "# The Well\n\n",
        "The Well\n========\n",
        "The Well\n\n",
        "THE WELL\n\nby Ann Lee\n\n",
        "**The Well**\nBy Ann Lee\n\n",
    ],
)
def test_a_title_is_no_first_sentence(head):
    framed = unframed(head + PROSE, ".txt")
    assert framed.text == PROSE
    assert framed.about["title"].casefold() == "the well"
    assert framed.about.get("author", "Ann Lee") == "Ann Lee" and ("y Ann" in head) == (
        "author" in framed.about
    )


@pytest.mark.parametrize(
    "heads",
    [
        ("CHAPTER I.", "CHAPTER II."),
        ("Chapter One", "Chapter Twenty-Two: The Storm"),
        ("## The Storm", "## Calm ##"),
        ("Part the First", "Epilogue"),
        ("1", "2"),
        ("I.", "II."),
        ("**Chapter 3 The Storm**", "Interlude"),
    ],
)
def test_chapter_headings_are_taken_off_and_counted(heads):
    one, two = heads
    framed = unframed(f"{one}\n\nHe ran.\n\n{two}\n\nShe slept.\n", ".txt")
    assert (framed.text.strip(), framed.taken["chapter_headings"]) == ("He ran.\n\nShe slept.", 2)
    assert framed.about == {}


def test_markdowns_escapes_are_read_in_markdown_alone():
    framed = unframed("# **The Well\\!**\n\n“No\\!” she said \\- *now*.\n\n\\*\\*\\*\n\nC:\\new\n", ".md")
    assert framed.text == "“No!” she said - *now*.\n\n***\n\nC:\\new"
    assert (framed.about, framed.taken["escapes"]) == ({"title": "The Well!"}, 5)
    assert unframed("“No\\!” she said.", ".txt").text == "“No\\!” she said."


def test_a_long_list_of_numbers_is_no_list_of_chapters():
    text = "\n\n".join(f"{number}\n\nHe ran." for number in range(1, 400))
    assert unframed(f"Well, he ran.\n\n{text}", ".txt").text.endswith("399\n\nHe ran.")


def test_wrapped_paragraphs_are_joined_and_verse_among_them_is_not():
    framed = unframed(f"{WRAPPED}\n\n    And the water was black,\n    And the water was deep.\n", ".txt")
    first, second, verse = framed.text.split("\n\n")
    assert "\n" not in first and "\n" not in second and "long, half-lit evenings" in first
    assert verse == "    And the water was black,\n    And the water was deep."
    assert framed.text.split() == WRAPPED.replace("half-\nlit", "half-lit").split() + verse.split()
    assert unframed(VERSE, ".txt").text == VERSE


GUTENBERG = f"""The Project Gutenberg eBook of The Well, by Jane Roe

Title: The Well
Author: Jane Roe

*** START OF THE PROJECT GUTENBERG EBOOK THE WELL ***

Produced by A. Volunteer
and another

THE WELL

{PROSE}

End of the Project Gutenberg EBook of The Well, by Jane Roe
*** END OF THE PROJECT GUTENBERG EBOOK THE WELL ***

Updated editions will replace the previous one.
"""
ARCHIVE = f"""The Well
by Ann

Posted originally on the Archive of Our Own at http://archive.example/works/1.

Rating: General Audiences
Archive Warning: No Archive Warnings Apply
Fandom: Original Work
Stats: Published: 2020-01-01 Words: 20 Chapters: 1/1

{PROSE}

End Notes

Thank you!

Please drop by the Archive and comment to let the creator know if you enjoyed their work!
"""
FANFICTION = f"""The Well

by Jane

Category: Books
Genre: Drama
Words: 20
Story URL: http://fiction.example/s/1/1/
Summary: A well.

\tChapter 1

{PROSE}

End file.
"""


@pytest.mark.parametrize("text", [GUTENBERG, ARCHIVE, FANFICTION], ids=["gutenberg", "archive", "fanfiction"])
def test_a_librarys_frame_is_taken_off_and_counted(text):
    framed = unframed(text, ".txt")
    assert (framed.text, framed.taken["frames"], framed.about["title"]) == (PROSE, 1, "The Well")
    assert framed.about["author"].startswith(("Ann", "Jane"))


def test_a_screenplay_keeps_its_lines_and_loses_what_nobody_prints():
    scene = "INT. KITCHEN - NIGHT\n\nANN\n(quietly)\nWho put out the lamp?\n\nBOB\nNot I."
    page = "Title: _**The Lamp**_\nCredit: written by\nAuthor: Ann Lee\n\n"
    framed = unframed(
        f"{page}# Act One\n\n= They meet.\n\n[[fix this]]\n\n/* cut\nthis */\n\n{scene}\n", ".fountain"
    )
    assert framed.text == scene
    assert framed.about == {"title": "The Lamp", "author": "Ann Lee"}
    assert framed.taken["notes"] == 4


def test_half_a_character_in_front_matter_is_no_title():
    framed = unframed(f'---\ntitle: "\\ud800"\nauthor: Ann\n---\n{PROSE}', ".md")
    assert (framed.text, framed.about) == (PROSE, {"author": "Ann"})


def test_references_in_front_matter_are_not_multiplied():
    names = "abcdefghijklmnopqrst"
    bomb = "a: &a [x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{last}'] * 9)}]\n"
        for last, name in zip(names, names[1:], strict=False)
    )
    begin = time.process_time()
    framed = unframed(f"---\n{bomb}title: *t\ntags: [one, *t, 2021-03-04]\n---\n{PROSE}", ".md")
    assert framed.text == PROSE and framed.about == {"tags": ["one", "2021-03-04"]}
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("suffix", [".txt", ".fountain"])
@pytest.mark.parametrize(
    "unit",
    [
        "/* [[ ",
        "# ",
        "a: b\n",
        "Rating: x\n",
        "* ",
        " \n",
        "\n\nI\n",
        "THE END ",
        "“a” ",
        "-\n",
        "x" * 70 + "\n",
    ],
)
def test_no_text_takes_long(unit, suffix):
    begin = time.process_time()
    unframed(unit * (300_000 // len(unit)), suffix)
    assert time.process_time() - begin < 5
