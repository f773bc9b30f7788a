import pytest

from storyforge.report import findings
from storyforge.report.page import Answers, Table, Text, markdown

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
    ("low", "high", "said", "unsaid"),
    [
        (
            0.2,
            0.4,
            "**better** than the base, by 0.300 nats a token (95 % interval 0.200 to 0.400)",
            "No diff",
        ),
        (-0.1, 0.4, "No difference that this test can tell", "better"),
        (0.0, 0.4, "No difference that this test can tell", "better"),
        (-0.4, 0.0, "No difference that this test can tell", "worse"),
    ],
)
def test_a_claim_is_no_stronger_than_its_interval(low, high, said, unsaid):
    claimed = findings.claim({**GAIN, "low": low, "high": high}, "stories")
    assert said in claimed and unsaid not in claimed


def test_a_loss_is_told_as_worse():
    claimed = findings.claim({**GAIN, "nats_per_token": -0.3, "low": -0.4, "high": -0.2}, "stories")
    assert "**worse** than the base, by 0.300 nats a token (95 % interval 0.200 to 0.400)" in claimed


def test_one_group_makes_no_claim():
    claimed = findings.claim({**GAIN, "low": None, "high": None, "groups": 1}, "stories")
    assert "better" not in claimed and "too few groups for an interval" in claimed


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.05, 0.2, "matters **more**"),
        (-0.2, -0.05, "matters **less**"),
        (-0.1, 0.2, "this test cannot tell"),
        (None, None, "too few for an interval"),
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
            looping=row(0.0, 0.25, 0.1, 0.4, outside=["tuned"]),
            distinct_1=row(),
            distinct_2=row(low=0.0),
            gzip_ratio={**row(), "difference": None},
        )
    )
    assert "for 1 of 3 measures (loops 0 % → 25 %)" in said
    assert "one in twenty" in said and "percentile: tuned: loops." in said


def test_nothing_moved_and_nothing_outside_is_said_as_such():
    said = findings.of_writing(written(distinct_1=row()))
    assert "for 0 of 1 measures;" in said and said.endswith("percentile: none.")


def test_measures_stand_beside_the_human_range_and_their_interval():
    made = markdown(
        [findings.measures(written(finished=row(outside=["tuned"]), gzip_ratio=row(corpus=None)))]
    )
    assert "| finished | 50 % | 60 % † | 20 to 80 % | +10 (-10 to +30) points |" in made
    assert "| gzip ratio | 0.50 | 0.60 |  | +0.10 (-0.10 to +0.30) |" in made


def test_a_measure_without_an_interval_or_a_name_of_ours_is_shown_as_it_is():
    made = markdown([findings.measures(written(new_one={**row(), "difference": None}))])
    assert "| new one | 0.500 | 0.600 | 0.200 to 0.800 |  |" in made


def test_only_measures_in_which_humans_differ_are_drawn():
    flat = dict.fromkeys(CORPUS, 0.0)
    found = findings.pictured(written(copied_8=row(corpus=flat), words=row(corpus=None), distinct_1=row()))
    assert list(found) == ["distinct_1"]


def test_losses_name_the_sources_where_there_are_several():
    evaluation = {**PART, "general": PART, "sources": {"plays": PART}}
    assert [line[0] for line in findings.losses(evaluation).rows] == ["held-out stories", "general text"]
    evaluation["sources"]["tales"] = {**PART, "improvement": {**GAIN, "low": None}}
    table = findings.losses(evaluation)
    assert [line[0] for line in table.rows] == ["held-out stories", "plays", "tales", "general text"]
    assert table.rows[1][1:] == ["+0.300 (+0.200 to +0.400)", "3.500 → 3.200", "1.500 → 1.400", "33.1 → 24.5"]
    assert table.rows[2][1] == "+0.300"


def test_samples_are_the_first_of_each_prompt_and_say_so():
    told = {"text": "Rain.", "tokens": 3, "ended": True}
    rows = [
        {
            "kind": "horror",
            "prompt": f"p{n}",
            "sample": k,
            "seed": n,
            "base": told,
            "tuned": told | {"ended": False},
        }
        for n in range(findings.MOST_ANSWERED + 1)
        for k in range(2)
    ]
    blocks = findings.samples(rows, {"sampling": {"temperature": 0.8, "top_p": 0.95}})
    answers = [block for block in blocks if isinstance(block, Answers)]
    assert [block.prompt for block in answers] == [f"p{n}" for n in range(findings.MOST_ANSWERED)]
    assert answers[0].written == {
        "base": ("Rain.", "3 tokens, ended by itself"),
        "tuned": ("Rain.", "3 tokens, cut"),
    }
    assert isinstance(blocks[0], Text) and "temperature 0.8, top p 0.95" in blocks[0].text
    assert (
        f"first {findings.MOST_ANSWERED} of {findings.MOST_ANSWERED + 1} prompts. All 34 are in"
        in blocks[0].text
    )


@pytest.mark.parametrize(("groups", "narrow"), [(6, True), (10, False), (1, False)])
def test_few_groups_are_named_as_a_limit(groups, narrow):
    points = findings.limits({"improvement": {**GAIN, "groups": groups}}).items
    assert any("narrow side" in point for point in points) is narrow


def test_every_measure_is_explained():
    blocks = findings.of_measures(written(looping=row(), self_bleu=row()), 100)
    meanings = [block for block in blocks if isinstance(block, Table)][-1]
    assert [name for name, _ in meanings.rows] == ["loops", "self-BLEU"]
    assert "first 100 words, in the 11 cases" in blocks[0].text
