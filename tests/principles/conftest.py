import pytest

from storyforge.core.records import Exchange
from storyforge.principles.corpus import corpus

SCENE = "Write a scene for a comedy. Place:"


@pytest.fixture(scope="session")
def known():
    """The facts of three short stories."""
    return corpus(
        [
            Exchange("a", "made", "A", f"{SCENE} A wood. Speakers: ANNE.", "ANNE\nThe night is long.", True),
            Exchange("b", "made", "B", f"{SCENE} A hall.", "BEN\nWe came by the old mill road.", True),
            Exchange("c", "made", "C", "Tell.", "She said it had rained for a week in the valley.", True),
        ]
    )
