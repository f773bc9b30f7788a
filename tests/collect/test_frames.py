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
        "Part two. He laughed.\n\nHe ran.",
        "He rang.\n\nBook the tickets.\n\nShe did.",
        "One.\n\n# # #\n\nTwo.\n\n***\n\nThree.",
        "It was 7.\n\n7\n\nNobody spoke.",
        "---\nnot: [yaml\n---\n\nHe ran.",
        "Rating: five stars, he thought.\n\nHe ran.",
        "- milk\n- bread\n\nThat was the list.",
        "# milk and eggs\n\nShe read the list.\n\n# bread\n\nHe ran.",
        "It was late\nBy morning they were gone.\n\nNobody knew.",
        "It was late\n\nBy morning they were gone.\n\nNobody knew.",
        "老人走过木桥，没有回头。\n\n他死了！",
        "「行くな」と母は言った。\n\n雨。",
        "「行くな」\n\n雨。",
        "他死了！\n\n雨。",
        "老人走过木桥\n\n雨。",
        "वह चला गया।\n\nवर्षा।",
        "هل جاء أحد؟\n\nلا.",
        "12 March\n\nHe ran.",
        "London, 1943\n\nHe ran.",
        "London\n\nHe ran.",
        "Winter 1943\n\nHe ran.",
        "Monday Morning\n\nHe ran.",
        "Two Weeks Later\n\nHe ran.",
        "(Enter Ann)\n\nHe ran.",
        "[A Dark Room]\n\nHe ran.",
        "Rain. Then more rain\n\nHe ran.",
        "Nobody came\n\nHe ran.",
        "Anna met Tom in London\n\nHe ran.",
        "Dear Anna\n\nHe ran.",
        "ANNA\n\nHello.\n\nANNA\n\nIs nobody there?",
        "I\n\nHe ran.",
        "He ran.\n=====\nShe slept.",
        "---\nAnn: Who is there?\nBob: Nobody.\n---\n\nHe ran.",
        "He read the last line.\n\n*** END OF THE PROJECT GUTENBERG EBOOK THE WELL ***\n\nThen he slept.",
        "He read on.\n\nPlease drop by the archive and comment!\n\nThen he slept.",
        "He read on.\n\nEnd file.\n",
        "x" * 201 + ".\n\nRating: five\nStatus: alive\nWords: none\n\nHe ran.",
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
    ("text", "title", "rest"),
    [
        (
            "The Sea\n\nBy day I walk along the shore,\nby night I sleep.",
            "The Sea",
            "By day I walk along the shore,\nby night I sleep.",
        ),
        (
            "# The Sea Wall\n\nBy noon the rain had stopped.\n\nHe ran.",
            "The Sea Wall",
            "By noon the rain had stopped.\n\nHe ran.",
        ),
        (
            "The Boat\n\nby the river, a man sat.\n\nHe ran.",
            "The Boat",
            "by the river, a man sat.\n\nHe ran.",
        ),
        ("The Boat\n\nBy Nightfall\n\nHe ran.", "The Boat", "By Nightfall\n\nHe ran."),
        ("The Boat\n\nby Ann Lee\nHe ran.", "The Boat", "by Ann Lee\nHe ran."),
    ],
)
def test_a_first_line_that_begins_with_by_is_no_author(text, title, rest):
    framed = unframed(text, ".md")
    assert (framed.text, framed.about) == (rest, {"title": title})


@pytest.mark.parametrize(
    "names",
    [
        "Ann Lee",
        "J. R. R. Roe",
        "Ann Lee and Bob Roe",
        "Ann van der Lee",
        "ANN LEE & BOB",
        "Zoë O’Hara-Lee",
        "李白",
    ],
)
def test_a_first_line_above_names_is_a_title_in_any_case(names):
    framed = unframed(f"Night over the bridge\n\nby {names}\n\n{PROSE}", ".txt")
    assert (framed.text, framed.about) == (PROSE, {"title": "Night over the bridge", "author": names})


@pytest.mark.parametrize(
    "block",
    [
        "title: The Lamp: A Story\nauthor: 'Ann'\ntags: [sea, \"rope\"]",
        "title: The Lamp: A Story\n# a note\nauthor: Ann\ntags:\n  - sea\n  - rope\nsummary: >\n  Long.",
    ],
)
def test_front_matter_that_is_no_yaml_is_read_line_by_line(block):
    framed = unframed(f"---\n{block}\n---\n\n{PROSE}", ".md")
    assert framed.about == {"title": "The Lamp: A Story", "author": "Ann", "tags": ["sea", "rope"]}
    assert (framed.text, framed.taken["front_matter"]) == (PROSE, 1)


@pytest.mark.parametrize("suffix", [".md", ".markdown", ".docx"])
@pytest.mark.parametrize("heads", [("## The Storm", "## Calm ##"), ("# I", "# II")])
def test_marked_headings_are_headings_where_the_text_is_markdown(heads, suffix):
    one, two = heads
    framed = unframed(f"{one}\n\nHe ran.\n\n{two}\n\nShe slept.\n", suffix)
    assert (framed.text.strip(), framed.taken["chapter_headings"]) == ("He ran.\n\nShe slept.", 2)
    assert framed.about == {}


@pytest.mark.parametrize(
    "heads",
    [
        ("CHAPTER I.", "CHAPTER II."),
        ("Chapter Seventeen", "Part Twenty-One"),
        ("Chapter Fifty-Six: The Storm", "CHAPTER NINETY"),
        ("Chapter One", "Chapter Twenty-Two: The Storm"),
        ("Chapter Seventeen", "CHAPTER FIFTY ONE. Calm"),
        ("# Chapter 1", "# Chapter 2"),
        ("Глава 1", "Глава 2. Буря"),
        ("Kapitel I", "Chapitre 2 : Rêve"),
        ("Capítulo 1", "Capitolo II"),
        ("第一章", "第2章 風"),
        ("I", "II"),
        ("PART I.", "CHAPTER I. The Storm."),
        ("Part 1: The Storm", "BOOK II. — Calm"),
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


def test_forty_chapters_may_have_roman_numbers_alone():
    tens, ones = ["", "X", "XX", "XXX", "XL"], ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"]
    numbers = [ten + one for ten in tens for one in ones][1:45]
    framed = unframed("\n\n".join(f"{number}\n\nHe ran." for number in numbers), ".txt")
    assert framed.taken["chapter_headings"] == 44 and "X" not in framed.text


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


def test_wrapped_paragraphs_with_an_indent_and_no_blank_line_are_joined():
    paragraph = "    The well stood in the middle of the yard, and nobody had drawn\nfrom it since summer.\n"
    framed = unframed(paragraph * 4 + "    “Why?” she asked.\n    Nobody knew.", ".txt")
    assert framed.text == paragraph.replace("drawn\n", "drawn ").lstrip("\n") * 4 + (
        "    “Why?” she asked.\n    Nobody knew."
    )


def test_labels_in_the_story_are_no_frame():
    labels = "Rating: General\nFandom: None\nWords: 20\n"
    story = f"She read the card. {'It was long. ' * 20}\n\nStatus: alive\n\nHe ran."
    assert unframed(f"{labels}\n{story}", ".txt").text == story
    assert unframed(labels + story, ".txt").text == story
    speeches = "“Who is there?”\n\n“Nobody.”\n\n" * 5
    assert unframed(f"{speeches}{labels}\nHe ran.", ".txt").text == f"{speeches}{labels}\nHe ran."


def test_between_two_books_of_a_library_nothing_goes():
    framed = unframed(GUTENBERG + GUTENBERG.replace("yard", "field"), ".txt")
    assert "in the yard" in framed.text and "in the field" in framed.text


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
