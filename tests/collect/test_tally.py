"""What the collection report says of a source."""

from collections import Counter

from storyforge.collect.sources import tinystories
from storyforge.collect.tally import SAMPLES, Tally
from storyforge.core.words import quantiles


def test_quantiles_are_lengths_that_occur():
    lengths = Counter(range(1, 101))
    assert quantiles(lengths) == {
        "min": 1,
        "p5": 5,
        "p25": 25,
        "median": 50,
        "p75": 75,
        "p95": 95,
        "max": 100,
    }
    assert quantiles(Counter({7: 3})) == dict.fromkeys(quantiles(lengths), 7)
    assert quantiles(Counter()) == {}


def test_report_counts_words_and_bytes_of_what_is_kept():
    tally = Tally(not_chosen=2, duplicates=1)
    tally.keep(tinystories("One two three."), rank=5)
    tally.keep(tinystories("Café noir."), rank=4)
    tally.reject("nul", "a.jsonl, record 1")
    tally.reject("not_json", "a.jsonl, record 2")
    report = tally.report()
    assert (report["stories"], report["words"], report["bytes"]) == (2, 5, 14 + 11)
    assert report["records"] == {
        "read": 7,
        "not_chosen": 2,
        "duplicates": 1,
        "rejected": {"not_json": 1, "nul": 1},
    }
    assert tally.first_reject == "a.jsonl, record 1: nul"


def test_samples_are_the_lowest_ranks_whatever_the_order():
    stories = [tinystories(f"Story {number}. " + "word " * 200) for number in range(10)]
    forward, backward = Tally(), Tally()
    for number, story in enumerate(stories):
        forward.keep(story, number)
    for number, story in reversed(list(enumerate(stories))):
        backward.keep(story, number)
    samples = forward.report()["samples"]
    assert samples == backward.report()["samples"]
    assert [sample["id"] for sample in samples] == [story.id for story in stories[:SAMPLES]]
    assert all(len(sample["opening"]) <= 240 and sample["opening"].endswith(" …") for sample in samples)
