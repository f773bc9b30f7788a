import pytest
from phase import PAIR, REFUSED, TEXTS, VERDICTS

from storyforge.core.files import write_jsonl


@pytest.fixture
def second(clone):
    """The clone, with what revise and judge leave."""
    others = [PAIR | {"id": f"p-{n}", "source": "tales"} for n in range(3)]
    write_jsonl(clone / "data/revised/pairs.jsonl", [PAIR, *others])
    write_jsonl(clone / "data/revised/rejected.jsonl", [REFUSED, REFUSED, REFUSED | {"reason": "gap"}])
    write_jsonl(clone / "data/judged/texts.jsonl", TEXTS)
    write_jsonl(clone / "data/judged/verdicts.jsonl", VERDICTS)
    return clone


def test_a_pair_is_shown_with_prompt_scores_and_both_texts(second, storyforge):
    done = storyforge("look", "revised", "--source", "plays", "--seed", "1")
    assert done.stdout == (
        "plays · King Lear · p-drafts-2-0 · drafts, to train on\n> A scene. Speakers: <b>ANN</b>.\n\n"
        "chosen, score 0.750, speakers 1.00\nANN\nGo | on.\n\n"
        "rejected, score 0.500, speakers 0.00\n<script>alert(2)</script>\n\n"
    )
    assert done.stderr == "not taken: check 2, gap 1: storyforge look revised --reason 'check'\nseed 1\n"


def test_same_seed_same_pairs_and_each_once(second, storyforge):
    first, again = (storyforge("look", "revised", "-n", "2", "--seed", "4").stdout for _ in range(2))
    assert first == again and first.count("chosen") == 2
    assert storyforge("look", "revised", "-n", "9").stdout.count("p-") == 4


def test_what_was_not_taken_is_shown_with_its_reason(second, storyforge):
    shown = storyforge("look", "revised", "--reason", "gap", "--seed", "1").stdout
    assert shown == "p: gap: against 1, check turns, draft 3, gap 0.1, principle turns\n"


def test_a_verdict_is_shown_with_both_texts_and_both_orders(second, storyforge):
    done = storyforge("look", "verdicts", "--seed", "1")
    head, _, below = done.stdout.partition("tuned (9 tokens)\n")
    assert head.startswith(
        "aligned against tuned · q · answer 1\n> A scene of storms.\n\naligned (9 tokens)\n"
    )
    assert "aligned | wrote." in head and below.startswith("tuned | wrote.\n")
    lines = [line.split("  ") for line in below.splitlines()[2:]]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines if any(line)]
    assert cells == [
        ["aligned shown first", "tuned shown first"],
        ["speakers", "aligned, by 2", "tuned, by 2"],
        ["overall", "aligned, by 2", "aligned, by 2"],
    ]


def test_a_missing_verdict_says_why(second, storyforge):
    rows = [row | {"overall": None, "principles": {}, "why": "refusal"} for row in VERDICTS]
    write_jsonl(second / "data/judged/verdicts.jsonl", rows)
    assert storyforge("look", "verdicts").stdout.count("refusal") == 2


@pytest.mark.parametrize(
    ("file", "content", "words", "complaint"),
    [
        ("revised/pairs.jsonl", None, "revised", "is not there yet: run `dvc repro revise`"),
        ("revised/pairs.jsonl", "", "revised", "is empty: data/revised/report.json says why"),
        ("judged/verdicts.jsonl", "", "verdicts", "is empty: data/judged/details.json says why"),
        ("judged/verdicts.jsonl", '{"pair": 1}\n', "verdicts", "row 1: is none that `judge` writes"),
        ("judged/texts.jsonl", None, "verdicts", "is not there yet: run `dvc repro judge`"),
        ("revised/pairs.jsonl", "x", "revised --source no", "line 1"),
    ],
)
def test_what_cannot_be_shown_is_one_line(second, storyforge, file, content, words, complaint):
    place = second / "data" / file
    place.unlink() if content is None else place.write_text(content)
    said = storyforge("look", *words.split(), status=1).stderr
    assert f"data/{file}" in said and complaint in said and said.count("\n") == 1


def test_what_is_wanted_and_not_there_is_named(second, storyforge):
    said = storyforge("look", "revised", "--reason", "moon", status=1).stderr
    assert said == "error: there is none of reason 'moon'\n"


def test_a_verdict_without_its_answer_is_one_line(second, storyforge):
    write_jsonl(second / "data/judged/texts.jsonl", TEXTS[:2])
    said = storyforge("look", "verdicts", status=1).stderr
    assert "lacks an answer to q" in said
