import pytest

from storyforge.records import write_json, write_jsonl
from storyforge.stages import report

NUMBERS = {"loss": 3.5, "perplexity": 33.1, "bits_per_byte": 1.5}
GAIN = {"nats_per_token": 0.3, "low": 0.2, "high": 0.4, "groups": 6}
EVALUATION = {
    "base": NUMBERS,
    "tuned": {"loss": 3.2, "perplexity": 24.5, "bits_per_byte": 1.4},
    "improvement": GAIN,
    "stories": 160,
    "reply_tokens": 40_000,
    "sources": {"plays": {}},
}
TRAIN = {"stories": 500, "tokens": 150_000, "steps": 250, "validation": {"best_step": 250}}
PAIR = {
    "id": "x",
    "kind": "horror",
    "prompt": "Tell of <b>rain</b>.",
    "seed": 7,
    "base": {"text": "<script>alert(1)</script>\nIt | rained.", "tokens": 9, "ended": True},
    "tuned": {"text": "Rain", "tokens": 220, "ended": False},
}
DETAILS = {"sampling": {"temperature": 0.8, "top_p": 0.95}}


@pytest.mark.parametrize(
    "low, high, words",
    [
        (0.2, 0.4, "predicts the text better"),
        (-0.4, -0.2, "predicts the text worse"),
        (-0.1, 0.2, "No difference"),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval(low, high, words):
    evaluation = {**EVALUATION, "improvement": {**GAIN, "low": low, "high": high}}
    said = report.verdict(evaluation)
    assert words in said and f"{low:.3f} to {high:.3f}" in said and "6 groups" in said


def test_one_group_makes_no_claim():
    gain = {**GAIN, "low": None, "high": None, "groups": 1}
    said = report.verdict({**EVALUATION, "improvement": gain})
    assert "better" not in said and "too few for an interval" in said


def test_a_writers_words_are_never_markup():
    text = report.report(TRAIN, EVALUATION, DETAILS, [PAIR])
    assert "<script>" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;<br>It | rained." in text
    assert "> Tell of &lt;b&gt;rain" in text


def test_samples_stand_side_by_side_with_settings_seed_and_cut():
    text = report.report(TRAIN, EVALUATION, DETAILS, [PAIR])
    assert "temperature 0.8, top p 0.95" in text and "seed 7" in text and "### Horror" in text
    assert "Rain <i>[cut at 220 tokens]</i>" in text
    assert text.count("<td") == 2


def test_numbers_are_those_measured():
    text = report.report(TRAIN, EVALUATION, DETAILS, [PAIR])
    assert "| base | 3.500 | 33.10 | 1.500 |" in text and "| tuned | 3.200 | 24.50 | 1.400 |" in text
    assert "500 stories (150,000 tokens) in 250 steps" in text


@pytest.fixture
def workspace(tmp_path):
    write_jsonl(tmp_path / "evaluated" / "samples.jsonl", [PAIR])
    write_json(tmp_path / "evaluated" / "details.json", DETAILS)
    write_json(tmp_path / "train.json", TRAIN)
    write_json(tmp_path / "evaluate.json", EVALUATION)
    rows = "".join(f"{n}\t{4 - n / 100}\n" for n in range(1, 60))
    (tmp_path / "train.tsv").write_text("step\tloss\n" + rows)
    (tmp_path / "val.tsv").write_text("step\tloss\n0\t3.9\n50\t3.5\n")
    names = ("evaluated", "train.tsv", "val.tsv", "train.json", "evaluate.json", "c.md", "loss.png")
    return [tmp_path / name for name in names]


def test_the_picture_is_the_same_bytes_every_time(workspace):
    report.main(*workspace)
    first = workspace[-1].read_bytes()
    report.main(*workspace)
    assert first.startswith(b"\x89PNG") and workspace[-1].read_bytes() == first


def test_the_picture_shows_both_curves_and_the_base():
    figure = report.loss_picture(
        [{"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}], [{"step": 0, "loss": 3.9}]
    )
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines["training, mean of 20 steps"] == [4.0, 3.5]
    assert lines["validation"] == [3.9] and lines["base on validation"] == [3.9, 3.9]
