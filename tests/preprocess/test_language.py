"""English of any age is told from its neighbours."""

import pytest

from storyforge.preprocess.language import english


@pytest.mark.parametrize(
    "text",
    [
        "The old man went down to the sea, and he sat there until it was dark.",
        "Thou hast thy will, and so shall he that doth thee wrong have his.",
        "Rain. Mud. Horses steaming under torches; nobody speaking, everybody cold.",
    ],
)
def test_english_is_english(text):
    assert english(text, text.lower().split()) >= 0.8


@pytest.mark.parametrize(
    "text",
    [
        "Il pleuvait depuis trois jours et personne ne savait où était passé le facteur du village.",
        "Es regnete seit drei Tagen, und niemand wusste, wohin der Briefträger gegangen war.",
        "Llovía desde hacía tres días y nadie sabía adónde había ido el cartero del pueblo.",
        "Дождь шёл три дня, и никто не знал, куда делся почтальон.",
    ],
)
def test_another_language_is_not(text):
    assert english(text, text.lower().split()) < 0.8


def test_nothing_does_not_crash():
    assert 0 <= english("", []) <= 1
