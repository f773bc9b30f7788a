"""What the three stages of the second phase leave behind, for the tests of what is made from it."""

from typing import Any

Row = dict[str, Any]


def gap(value: float, low: float | None, high: float | None) -> Row:
    return {"value": value, "low": low, "high": high, "groups": 24}


BETTER, OPEN, WORSE = gap(0.024, 0.007, 0.04), gap(0.01, -0.01, 0.03), gap(-0.03, -0.05, -0.01)
NO_INTERVAL = {**gap(0.1, None, None), "groups": 2}
SCORES = {
    "writers": {
        "base": {"texts": 48, "score": 0.7, "checks": {"speakers": 0.2, "known_words": 0.99}},
        "tuned": {"texts": 48, "score": 0.861, "checks": {"speakers": 0.57, "known_words": 0.98}},
        "aligned": {"texts": 48, "score": 0.885, "checks": {"speakers": 0.74, "known_words": 0.97}},
        "constitution": {"texts": 48, "score": None, "checks": {"known_words": 0.98}},
        "human": {"texts": 24, "score": 0.9, "checks": {"speakers": 0.82}},
    },
    "differences": {"aligned-tuned": {"score": BETTER, "checks": {"speakers": BETTER, "known_words": OPEN}}},
}
WON = {
    "wins": 20,
    "losses": 12,
    "ties": 15,
    "missing": 1,
    "win_rate": gap(0.58, 0.52, 0.64),
    "length_controlled": gap(0.57, 0.5, 0.63),
    "log_words": 0.1,
    "principles": {"words_that_exist": {"wins": 3, "losses": 4, "ties": 40}},
    "position_bias": 0.25,
    "self_consistency": None,
}
JUDGED = {
    "judge": "checks",
    "fit": True,
    "why": None,
    "gate": {
        "kinds": {
            "loop": {"right": 12, "pairs": 12, "claimed": True},
            "half": {"right": 3, "pairs": 12, "claimed": False},
        },
        "planted": {"pairs": 12, "moved": 0},
    },
    "prompts": 24,
    "samples": 2,
    "scores": SCORES,
    "pairs": {"aligned-tuned": WON, "tuned-base": WON | {"win_rate": gap(0.5, None, None)}},
    "diversity": {
        "words": 40,
        "writers": {
            "base": {"distinct_2": 0.98, "self_bleu": None},
            "aligned": {"distinct_2": 0.97, "self_bleu": 0.015},
        },
        "human": {"distinct_2": {"p5": 0.9, "p95": 1.0}, "self_bleu": {"p5": 0.01, "p95": 0.02}},
    },
    "usage": {"calls": 0, "dollars": 0.0},
    "warnings": ["a true win rate of 0.61 is seen in 44% of runs of this size"],
}
UNFIT = {"judge": "anthropic", "fit": False, "why": "90.0% of 60 obvious pairs judged right, not 95%"}
ALIGNED = {
    "steps": 21,
    "kept_step": 21,
    "pairs": 81,
    "objective": {"kind": "dpo", "beta": 0.1, "nll": 0.0},
    "human_loss": {"tuned": 3.269, "aligned": 3.276},
    "stopped": None,
}
REVISED = {
    "prompts": {"answered": 80, "seen_by_train": 3},
    "drafts": {"texts": 320},
    "pairs": {"all": 93, "train": 81, "held_out": 12},
    "reasons": {"check": 200, "gap": 90},
    "notice": None,
}
PAIR = {
    "id": "p-drafts-2-0",
    "source": "plays",
    "group": "King Lear",
    "prompt": "A scene. Speakers: <b>ANN</b>.",
    "chosen": "ANN\nGo | on.",
    "rejected": "<script>alert(2)</script>",
    "chosen_ended": False,
    "rejected_ended": False,
    "meta": {
        "kind": "drafts",
        "side": "train",
        "gap": 0.25,
        "score": {"chosen": 0.75, "rejected": 0.5},
        "scores": {"chosen": {"speakers": 1.0}, "rejected": {"speakers": 0.0}},
        "principle": None,
    },
}
REFUSED = {
    "id": "p",
    "draft": 3,
    "reason": "check",
    "principle": "turns",
    "against": 1,
    "gap": 0.1,
    "check": "turns",
}


def text(writer: str, said: str, *, prompt_id: str = "q", sample: int = 0) -> Row:
    return {
        "prompt_id": prompt_id,
        "group": "Macbeth",
        "prompt": "A scene of storms.",
        "sample": sample,
        "seed": 1,
        "writer": writer,
        "text": said,
        "tokens": 9,
        "ended": False,
        "human": writer == "human",
    }


TEXTS = [text(writer, f"{writer} | wrote.") for writer in ("base", "tuned", "aligned", "human")]
VERDICTS = [
    {
        "pair": ["aligned", "tuned"],
        "prompt_id": "q",
        "sample": 0,
        "order": order,
        "shown": ["aligned", "tuned"][:: -1 if order else 1],
        "repeat": 0,
        "principles": {"speakers": {"better": "A", "margin": 2}},
        "overall": {"better": better, "margin": 2},
        "why": None,
    }
    for order, better in enumerate(("A", "B"))
]
