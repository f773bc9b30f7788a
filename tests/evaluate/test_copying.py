from storyforge.evaluate.copying import copied_runs, copied_share

COUNTING = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def test_runs_that_the_training_text_has_are_found_whatever_their_dress():
    text = COUNTING.split()
    copied = copied_runs([text], ["Nothing here.", f"And so: {COUNTING.upper().replace(' ', ', ')}!"])
    assert copied_share(text, 8, copied) == copied_share(text, 13, copied) == 1


def test_the_share_is_of_the_texts_own_runs():
    """Nine of its fourteen words stand there: two of its seven runs of eight, none of thirteen."""
    copied = copied_runs([COUNTING.split()], ["one two three four five six seven eight nine and no more"])
    assert copied_share(COUNTING.split(), 8, copied) == 2 / 7
    assert copied_share(COUNTING.split(), 13, copied) == 0


def test_a_run_does_not_reach_across_stories():
    first, second = COUNTING[:30], COUNTING[30:]
    assert not copied_runs([COUNTING.split()], [first, second])


def test_seven_words_in_common_are_nothing():
    assert not copied_runs([COUNTING.split()], ["one two three four five six seven"])


def test_the_training_text_is_read_once_and_not_kept():
    stories = (
        f"story {number} of many, each as forgettable as the one before it was" for number in range(1000)
    )
    assert copied_runs([COUNTING.split()], stories) == frozenset()
    assert next(stories, None) is None
