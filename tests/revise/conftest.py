import pytest


@pytest.fixture
def revise_params():
    from storyforge.revise.params import ReviseParams

    return ReviseParams(
        seed=5,
        prompts=6,
        drafts=4,
        max_new_tokens=8,
        critic="checks",
        pairs="drafts",
        pairs_per_prompt=2,
        min_gap=0.05,
        slack=0.02,
        length_band=0.2,
        overlap=(0.2, 0.9),
        rounds=2,
        min_pairs=1,
        calls=None,
    )


@pytest.fixture
def draft():
    """Makes a draft of a score and of checks that the test gives; of 100 tokens and another text each."""
    from storyforge.core.records import Exchange
    from storyforge.principles.scores import Scored
    from storyforge.revise.drafts import Draft

    row = Exchange("story-1", "made", "group-1", "Tell of the ferry and the miller.", "A story.", True)

    def make(number, score=0.5, text=None, tokens=100, ended=True, **checks):
        found = Scored(score=score, checks=checks)
        return Draft(row, number, f"Draft {number}." if text is None else text, tokens, ended, found)

    return make
