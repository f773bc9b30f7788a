import pytest

from storyforge.report import findings

GAIN = {"nats_per_token": 0.3, "low": 0.2, "high": 0.4, "groups": 6}
NUMBERS = {"loss": 3.5, "perplexity": 33.1, "bits_per_byte": 1.5}
PART = {
    "base": NUMBERS,
    "tuned": {"loss": 3.2, "perplexity": 24.5, "bits_per_byte": 1.4},
    "improvement": GAIN,
}
CORPUS = {"p1": 0.1, "p5": 0.2, "median": 0.5, "p95": 0.8, "p99": 0.9}


def row(base=0.5, tuned=0.6, low=-0.1, high=0.3, *, corpus=CORPUS, outside=()):
    gap = {"value": tuned - base, "low": low, "high": high, "groups": 8}
    return {"base": base, "tuned": tuned, "difference": gap, "corpus": corpus, "outside": list(outside)}


def written(**measures):
    return {"samples": 16, "compared": 11, "measures": measures}


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.05, 0.2, "matters **more**"),
        (-0.2, -0.05, "matters **less**"),
        (-0.1, 0.2, "may matter more or less"),
        (None, None, "fewer than three groups give no interval"),
    ],
)
def test_the_prompt_matters_as_the_interval_says(low, high, said):
    gain = {"value": 0.1, "low": low, "high": high, "groups": 6}
    both = {"own_prompt_first": 0.75}
    use = {"stories": 24, "chance": 0.2, "base": both, "tuned": both, "shuffled_cost_gain": gain}
    assert said in findings.of_prompts(use) and "75 %" in findings.of_prompts(use)


def test_writing_names_what_moved_and_what_no_human_writes():
    said = findings.of_writing(
        written(
            finished=row(0.0, 0.25, 0.1, 0.4, outside=["tuned"]),
            words=row(),
            distinct_2=row(low=0.0),
            self_bleu={**row(), "difference": None},
        )
    )
    assert said.startswith(
        "Clear differences between the writers: 1 of 3 measures (finished 0 % → 25 %), with"
    )
    assert "one in twenty" in said
    assert said.endswith("(1st to 99th percentile): tuned: finished.")


def test_nothing_moved_and_nothing_outside_is_said_as_such():
    said = findings.of_writing(written(distinct_2=row()))
    assert said.startswith("Clear differences between the writers: 0 of 1 measures. Means") and said.endswith(
        "percentile): none."
    )


def test_measures_stand_beside_the_human_range_and_their_interval():
    made = findings.measures(written(finished=row(outside=["tuned"]), words_ratio=row(corpus=None)))
    assert "| finished | 50 % | 60 % † | 20 to 80 % | +10 (-10 to +30) points |" in made
    assert "| words per word asked | 0.50 | 0.60 |  | +0.10 (-0.10 to +0.30) |" in made


def test_a_measure_without_an_interval_or_a_name_of_ours_is_shown_as_it_is():
    made = findings.measures(written(new_one={**row(), "difference": None}))
    assert "| new one | 0.500 | 0.600 | 0.200 to 0.800 |  |" in made


def test_only_measures_in_which_humans_differ_are_drawn():
    flat = dict.fromkeys(CORPUS, 0.0)
    found = findings.pictured(written(copied_8=row(corpus=flat), words=row(corpus=None), distinct_2=row()))
    assert list(found) == ["distinct_2"]
    assert "writing.png" not in findings.measures(written(copied_8=row(corpus=flat)))


def test_losses_name_the_sources_where_there_are_several():
    details = {**PART, "general": PART, "sources": {"plays": PART}}

    def rows():
        return [line.strip("| ").split(" | ") for line in findings.losses(details).splitlines()[2:]]

    assert [line[0] for line in rows()] == ["held-out stories", "general text"]
    details["sources"]["tales"] = {**PART, "improvement": {**GAIN, "low": None}}
    assert [line[0] for line in rows()] == ["held-out stories", "plays", "tales", "general text"]
    assert rows()[1][1:] == ["+0.300 (+0.200 to +0.400)", "3.500 → 3.200", "1.500 → 1.400", "33.1 → 24.5"]
    assert rows()[2][1] == "+0.300"


def test_answers_are_side_by_side_with_how_each_ended():
    made = findings.pairs(
        [
            {
                "kind": "horror",
                "prompt": "Tell.",
                "seed": 7,
                "base": {"text": "Rain.\nSun.", "tokens": 3, "ended": True},
                "tuned": {"text": "", "tokens": 0, "ended": False},
            }
        ]
    )
    assert made.splitlines()[:3] == ["### Horror", "", "> Tell."] and made.endswith("Seed 7.")
    cells = "| Rain.<br>Sun.<br><br>*3 tokens, ended by itself* | *nothing*<br><br>*0 tokens, cut* |"
    assert cells in made.splitlines()


def test_the_limits_say_what_the_intervals_rest_on():
    said = findings.limits({"improvement": {**GAIN, "groups": 6}})
    assert "leaving out each of the 6 held-out groups" in said and "one training run" in said
    said = findings.limits({"improvement": {**GAIN, "low": None, "groups": 1}})
    assert "Fewer than three groups are held out" in said and "intervals of the losses" not in said


def test_every_measure_is_explained():
    rows = findings.meanings(written(words=row(), self_bleu=row())).splitlines()[2:]
    assert [line.split(" | ")[0] for line in rows] == ["| words", "| self-BLEU"]
