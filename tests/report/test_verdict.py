import pytest

from storyforge.report.verdict import advice, changes, in_16_bits, learned, lost, too_strong, verdict

TESTED = "predicting stories that it was not trained on (96 held-out stories of 6 groups)"


def gain(value, low, high, groups=6):
    return {"nats_per_token": value, "low": low, "high": high, "groups": groups}


def copied(base, tuned, low, high):
    return {"base": base, "tuned": tuned, "difference": {"value": tuned - base, "low": low, "high": high}}


BETTER, WORSE, OPEN = gain(0.3, 0.2, 0.4), gain(-0.3, -0.4, -0.2), gain(0.1, -0.1, 0.3)
FEW = gain(0.3, None, None, groups=1)
NONE, MUCH, LITTLE, MAYBE = (
    copied(0.0, 0.0, 0.0, 0.0),
    copied(0.0, 0.27, 0.2, 0.34),
    copied(0.0, 0.008, 0.002, 0.014),
    copied(0.01, 0.03, -0.02, 0.06),
)


def details(improvement=BETTER, general=BETTER, copied=NONE):
    measures = {} if copied is None else {"copied_8": copied}
    return {
        "stories": 96,
        "improvement": improvement,
        "general": {"improvement": general},
        "writing": {"measures": measures},
    }


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            BETTER,
            f"Tuning made SmolLM better at {TESTED}, by 0.300 nats per token (95 % interval 0.200 to 0.400).",
        ),
        (
            WORSE,
            f"Tuning made SmolLM worse at {TESTED}, by 0.300 nats per token (95 % interval 0.200 to 0.400).",
        ),
        (OPEN, "does not show whether tuning made SmolLM better or worse"),
        (gain(0.1, 0.0, 0.2), "does not show whether"),
        (gain(-0.1, -0.2, 0.0), "does not show whether"),
        (FEW, "(96 held-out stories of 1 group): an interval needs three groups"),
    ],
)
def test_what_was_learned_is_no_stronger_than_its_interval(found, said):
    assert said in learned("SmolLM", details(found), 40)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (BETTER, "in 4 bits, is better, by 0.300 nats per token (95 % interval 0.200 to 0.400)."),
        (WORSE, "in 4 bits, is **worse**, by 0.300 nats per token (95 % interval 0.200 to 0.400)."),
        (
            OPEN,
            "is not shown to be better or worse: it saves -0.100 to +0.300 nats per token (95 % interval)",
        ),
        (FEW, "in 4 bits, saves +0.300; an interval needs three groups."),
    ],
)
def test_against_the_base_in_16_bits_no_more_is_said_than_its_interval(found, said):
    whole = {"base": {"loss": 3.4}, "improvement": found}
    told = in_16_bits({"base": {"loss": 3.45}, "base_16bit": whole})
    assert (
        "in 16 bits has a loss of 3.400 nats per token, in 4 bits 3.450: the 4 bits alone change it by +0.050"
        in told
    )
    assert said in told


def test_a_base_that_was_not_in_4_bits_is_not_spoken_of_as_such():
    assert "bits" not in changes("SmolLM", details(), 40)
    found = details() | {"base_16bit": {"not_measured": "it takes 17.0 GiB, and there are 11.6"}}
    said = changes("SmolLM in 4 bits", found, 40)
    assert "The base in 16 bits was not measured (it takes 17.0 GiB, and there are 11.6)" in said
    assert said.index("**Learned.**") < said.index("**In 16 bits.**") < said.index("**Lost.**")
    assert "16 bits" not in changes("SmolLM in 4 bits", found, 0)  # nothing was learned


@pytest.mark.parametrize("found", [OPEN, FEW])
def test_what_is_not_shown_is_called_neither_better_nor_worse(found):
    said = verdict("SmolLM", details(found, found, None), 40)
    assert "Tuning made" not in said and "became worse at general text**" not in said
    assert "too strong" not in said and "did harm" not in said


def test_a_writer_that_copies_and_forgets_is_too_strong():
    found = details(copied=MUCH, general=gain(-1.35, -1.5, -1.2))
    assert too_strong(found)
    assert "**It copies**: 27.00 % of the eight-word runs" in lost(found) and "+20.0 to +34.0 points" in lost(
        found
    )
    assert "**It became worse at general text**, by 1.350 nats per token" in lost(found)
    assert advice(found, 40).startswith("Tuning was too strong: train for fewer steps")


@pytest.mark.parametrize(
    ("found", "strong"),
    [
        (details(copied=MUCH), True),
        (details(copied=LITTLE), False),
        (details(copied=MAYBE), False),
        (details(copied=None), False),
        (details(copied=copied(0, 0.27, None, None)), False),
        (details(general=gain(-0.2, -0.3, -0.1)), True),
        (details(general=gain(-0.2, -0.5, 0.1)), False),
        (details(general=gain(-0.01, -0.02, -0.005)), False),
        (details(general=gain(-1.3, None, None)), False),
    ],
)
def test_too_strong_is_said_only_where_the_whole_interval_says_so(found, strong):
    assert too_strong(found) == strong == ("too strong" in advice(found, 40))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (NONE, "it has no eight words in a row from the training text"),
        (LITTLE, "**It copies**: 0.80 % of the eight-word runs"),
        (MAYBE, "no clear difference (95 % interval of the difference: -2.0 to +6.0 points)"),
        (copied(0.2, 0.1, -0.15, -0.05), "10.00 % of the eight-word runs"),
        (copied(0.0, 0.27, None, None), "fewer than three prompts give no interval"),
        (None, "Copying was not measured"),
    ],
)
def test_copying_is_told_as_its_interval_allows(row, said):
    assert said in lost(details(copied=row))
    assert ("It copies" in lost(details(copied=row))) == (row in (LITTLE, MUCH))


@pytest.mark.parametrize(
    ("general", "said"),
    [
        (BETTER, "did not become worse but better, by 0.300 nats"),
        (OPEN, "is not shown: it saves -0.100 to +0.300 nats per token (95 % interval), which contains 0"),
        (FEW, "too few general texts"),
    ],
)
def test_general_text_is_told_as_its_interval_allows(general, said):
    assert said in lost(details(general=general))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (BETTER, "Read the samples below"),
        (WORSE, "Tuning did harm: train for fewer steps"),
        (OPEN, "More stories or more steps may teach more"),
        (FEW, "An interval needs three works held out, which thirty works or more give: add works."),
    ],
)
def test_the_advice_follows_from_what_was_found(found, said):
    assert advice(details(found), 40).startswith(said)
    assert advice(details(found), 40).endswith("`storyforge compare`, or `make demo`.")


def test_an_adapter_of_step_0_has_learned_nothing_and_lost_nothing_and_that_is_said():
    said = verdict("SmolLM", details(gain(0.0, 0.0, 0.0), gain(0.0, 0.0, 0.0)), 0)
    assert "**Learned.** Nothing: no validation found SmolLM better" in said and "is the base" in said
    assert "Lower `train.learning_rate`" in said and "Lost" not in said and "compare" not in said
