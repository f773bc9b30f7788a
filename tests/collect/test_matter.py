"""What stands around a story in a manuscript or a book goes; what only looks like it stays."""

import pytest

from storyforge.collect.frames import unframed
from storyforge.collect.matter import without_address, without_author_page, without_contents

PROSE = "The rain had not stopped for nine days, and the river stood in the kitchen. " * 12
ADDRESS = "Ann Lee\n12 High Street\nLeeds LS1 4AB\nann.lee@mail.org\n0113 496 0000"


@pytest.mark.parametrize(
    "head",
    [
        f"{ADDRESS}\n\nabout 3,400 words\n\n\nTHE STORY\n\nby Ann Lee\n\n",
        f"{ADDRESS}\n\n\nThe Story\n\nby Ann Lee\n\n",
        f"{ADDRESS}\n\n\nThe Story\n\n",
        "Ann Lee                      approx. 3400 words\nann@lee.org\n\nThe Story\nby Ann Lee\n\n",
        "Word count: 812\n\nThe Story\n\nby Ann Lee\n\n",
        "Ann Lee\n3,400 words\n\nThe Story\n\nby Ann Lee\n\n",
    ],
)
def test_a_manuscripts_address_is_taken_off_and_its_title_found(head):
    framed = unframed(f"{head}{PROSE}\n", ".txt")
    assert framed.text == PROSE.rstrip("\n")
    assert framed.taken["addresses"] == 1 and framed.about["title"].casefold() == "the story"


@pytest.mark.parametrize(
    "text",
    [
        f"From: ann@lee.org\n\nDear Tom,\n\n{PROSE}",
        f"The last 300 words\n\nwere hers.\n\n{PROSE}",
        f"ann@lee.org\n\n{PROSE}",
        f"She had written 400 words.\n\nHe rang 0113 496 0000.\n\n{PROSE}",
        f"{PROSE}\n\nann@lee.org\n0113 496 0000\n",
        f"Ann Lee\n12 High Street\n\n{PROSE}",
        f"Tom wrote: {PROSE}\n\nann@lee.org\n\n{PROSE}\n\n500 words\n",
    ],
)
def test_mail_numbers_and_word_counts_in_a_story_stay(text):
    assert without_address(text) == (text, 0)


BACK = "Ann Lee lives in Leeds with two cats. Her stories have appeared in magazines."


@pytest.mark.parametrize(
    "back",
    [
        f"# About the Author\n\n{BACK}",
        f"About the Author\n\n{BACK}",
        f"## Also by Ann Lee\n\nThe Well\n\nThe Sea\n\n# ABOUT THE AUTHOR\n{BACK}",
        f"ABOUT THE AUTHORS\n\n{BACK}\n",
    ],
)
def test_a_books_last_page_on_its_author_is_taken_off(back):
    assert without_author_page(f"{PROSE}\n\n{back}") == (PROSE, 1)


@pytest.mark.parametrize(
    "text",
    [
        f"{PROSE}\n\nAbout the author\nshe would say nothing.\n\n{BACK}",
        f"{PROSE}\n\n# About the Author\n\n{BACK}\n\n# Chapter 2\n\n{PROSE}",
        f"{PROSE}\n\nAbout the Author\n\n{PROSE * 2}",
        f"About the Author\n\n{BACK}\n\n{PROSE}",
        f"# About the Author\n\n{BACK}",
        f"{PROSE}\n\nWhat was it about the author?\n\n{BACK}",
    ],
)
def test_a_story_about_an_author_stays(text):
    assert without_author_page(text) == (text, 0)


def test_a_table_of_contents_is_taken_off():
    chapters = f"Chapter One\n\n{PROSE}\n\nChapter Two: The Sea\n\n{PROSE}\n"
    for table in (
        "Contents\n\nChapter One ..... 3\nChapter Two: The Sea ..... 19\n\n",
        "# Table of Contents\n\n- Chapter One\n\n- Chapter Two: The Sea\n\n",
    ):
        assert without_contents(f"MY NOVEL\n\n{table}{chapters}") == (f"MY NOVEL\n\n{chapters}", 1)
        framed = unframed(f"MY NOVEL\n\n{table}{chapters}", ".txt")
        assert framed.text.count("Chapter") == 0 and framed.about == {"title": "MY NOVEL"}


@pytest.mark.parametrize(
    "text",
    [
        f"Contents\n\nOne watch\nTwo keys\nA letter\n\n{PROSE}",
        f"The contents\n\nChapter One\nChapter Two\n\nChapter One\n\n{PROSE}",
        f"{PROSE}\n\nContents\n\n",
        "Contents\n\nTwo keys\n\nTwo keys\n\n",
    ],
)
def test_what_a_drawer_contains_stays(text):
    assert without_contents(text) == (text, 0)


@pytest.mark.parametrize("line", ["New York", "Hyde Park", "LONDON", "WHITE NIGHTS", "RUN"])
def test_one_or_two_words_may_be_a_place_and_stay_but_for_the_files_name(line):
    text = f"{line}\n\nHe ran.\n\nShe slept."
    assert unframed(text, ".txt", "story 7").text == text
    framed = unframed(text, ".txt", f"03_{line.lower().replace(' ', '-')} final")
    assert (framed.text, framed.about) == ("He ran.\n\nShe slept.", {"title": line})


@pytest.mark.parametrize("title", ["untitled", "Story (final)", "dragon", "And then…", "New York", "LONDON"])
def test_above_a_by_line_any_short_line_is_a_title(title):
    framed = unframed(f"{title}\n\n\nby Ann Lee\n\nHe ran.\n\nShe slept.", ".txt")
    assert (framed.text, framed.about) == ("He ran.\n\nShe slept.", {"title": title, "author": "Ann Lee"})


def test_a_name_between_title_and_first_chapter_is_the_authors():
    framed = unframed("NIGHT BUS\n\nAnn Lee\n\nChapter One\n\nHe ran.\n\nShe slept.", ".txt")
    assert (framed.text.strip(), framed.about["author"]) == ("He ran.\n\nShe slept.", "Ann Lee")
    framed = unframed("The Night Bus\n\nAnn Lee\n\nwas the driver.\n\nChapter One\n\nHe ran.", ".txt")
    assert framed.text.startswith("Ann Lee\n\nwas the driver.")
