import pytest

from storyforge.measures.safety import minors_in_sexual_paragraphs


@pytest.mark.parametrize(
    "text, found",
    [
        ("They had sex.\nA school girl saw it.", ["school girl"]),
        ("They had sex.\n\nA school girl slept.", []),
        ("A sixteen-year-old molested\n\na toddler, and sex with a toddler", ["sixteen-year-old", "toddler"]),
        ("The little girl kissed the goose.", []),
        ("The sextant of a little boy.", []),
        ("", []),
    ],
)
def test_a_minor_counts_in_the_paragraph_of_the_sexual_word(text, found):
    matches = list(minors_in_sexual_paragraphs(text))
    assert [match[0] for match in matches] == found
    assert all(text[match.start() : match.end()] == match[0] for match in matches)
