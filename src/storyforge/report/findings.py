"""What a run found, in sentences and tables. No sentence is stronger than its interval."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storyforge.report.page import Answers, Block, Heading, Picture, Points, Table, Text

Row = Mapping[str, Any]
MOST_ANSWERED = 16  # prompts whose answers are printed: a page, not a book
WRITERS = ("base", "tuned")
FEW_GROUPS = 10  # with fewer, a bootstrap by group is known to be on the narrow side


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    meaning: str
    form: str = ".3f"


MEASURES = {
    "finished": Measure("finished", "ended by itself, after a sentence or a stage direction", ".0%"),
    "looping": Measure("loops", "the same words over and over, 12 or more in a row", ".0%"),
    "words": Measure("words", "written, up to the limit on tokens", ".1f"),
    "words_ratio": Measure("words per word asked", "1 inside the length a prompt asks for", ".2f"),
    "distinct_1": Measure("distinct words", "share of words that differ (Li et al. 2016)"),
    "distinct_2": Measure("distinct pairs", "share of 2-word runs that differ"),
    "distinct_3": Measure("distinct threes", "share of 3-word runs that differ"),
    "repeated_4": Measure("repeated fours", "share of 4-word runs said before (Welleck et al. 2020)"),
    "longest_repeat": Measure("longest repeat", "words in the longest run that stands there twice", ".1f"),
    "copied_8": Measure("copied eights", "share of 8-word runs found in the training text", ".2%"),
    "copied_13": Measure("copied thirteens", "share of 13-word runs found in the training text", ".2%"),
    "prompt_words": Measure(
        "prompt words", "share of a prompt's uncommon words that the text takes up", ".0%"
    ),
    "sample_distance": Measure(
        "sample distance", "of answers to one prompt: 0 the same, 1 no pair in common"
    ),
    "gzip_ratio": Measure("gzip ratio", "of one answer a prompt, together: higher is more alike", ".2f"),
    "self_bleu": Measure("self-BLEU", "of each such answer with the others: higher is more alike"),
}


def measure(name: str) -> Measure:
    return MEASURES.get(name) or Measure(name.replace("_", " "), "")


def claim(gain: Row, text: str) -> str:
    """What an improvement's interval allows to be said of how the tuned writer predicts `text`."""
    value, low, high = gain["nats_per_token"], gain["low"], gain["high"]
    if low is None:
        return (
            f"For {text} tuning saves {value:+.3f} nats a token: too few groups for an interval, or a claim."
        )
    if low <= 0 <= high:
        return (
            f"No difference that this test can tell for {text}: "
            f"{value:+.3f} nats a token (95 % interval {low:+.3f} to {high:+.3f})."
        )
    word, near, far = ("better", low, high) if low > 0 else ("worse", -high, -low)
    return (
        f"The tuned writer predicts {text} **{word}** than the base, by {abs(value):.3f} nats a token "
        f"(95 % interval {near:.3f} to {far:.3f})."
    )


def summary(evaluation: Row, details: Row) -> Points:
    """The findings, each with what it rests on."""
    general = evaluation["general"]["improvement"]
    others = f"{general['groups']} short texts of other kinds"
    points = [
        f"**Held-out stories.** {claim(evaluation['improvement'], held_out(evaluation))}",
        f"**General text.** {claim(general, others)}",
        f"**Its own writing.** {of_writing(details['writing'])}",
    ]
    if evaluation["prompt_use"]:
        points.insert(2, f"**The prompt.** {of_prompts(evaluation['prompt_use'])}")
    return Points(points)


def held_out(evaluation: Row) -> str:
    groups = evaluation["improvement"]["groups"]
    return f"{evaluation['stories']:,} held-out stories of {groups:,} {'group' if groups == 1 else 'groups'}"


def of_prompts(use: Row) -> str:
    gain, first = use["shuffled_cost_gain"], {writer: use[writer]["own_prompt_first"] for writer in WRITERS}
    said = (
        f"Of {use['stories']} stories, {share(first['base'])} are likeliest under their own prompt for the "
        f"base and {share(first['tuned'])} for the tuned writer (chance {share(use['chance'])}). "
    )
    cost = f"another prompt costs the tuned writer {gain['value']:+.3f} nats a token more than the base"
    if gain["low"] is None:
        return f"{said}As measured, {cost}; of one group alone, too few for an interval."
    span = f"(95 % interval {gain['low']:+.3f} to {gain['high']:+.3f})"
    if gain["low"] <= 0 <= gain["high"]:
        return (
            f"{said}Whether tuning changed how much the prompt matters, this test cannot tell: {cost} {span}."
        )
    return (
        f"{said}The prompt matters **{'more' if gain['low'] > 0 else 'less'}** after tuning: {cost} {span}."
    )


def of_writing(writing: Row) -> str:
    tested = {name: row for name, row in writing["measures"].items() if has_interval(row)}
    moved = [
        f"{measure(name).name} {shown(name, row['base'])} → {shown(name, row['tuned'])}"
        for name, row in tested.items()
        if not row["difference"]["low"] <= 0 <= row["difference"]["high"]
    ]
    outside = {
        writer: [measure(name).name for name, row in writing["measures"].items() if writer in row["outside"]]
        for writer in WRITERS
    }
    beyond = "; ".join(f"{writer}: {', '.join(names)}" for writer, names in outside.items() if names)
    return (
        f"The interval excludes no difference for {len(moved)} of {len(tested)} measures"
        f"{' (' + ', '.join(moved) + ')' if moved else ''}; by chance alone it would for one in twenty. "
        f"Outside the human 1st to 99th percentile: {beyond or 'none'}."
    )


def has_interval(row: Row) -> bool:
    return row["difference"] is not None and row["difference"]["low"] is not None


def losses(evaluation: Row) -> Table:
    sources = several(evaluation["sources"])
    return _compared({"held-out stories": evaluation, **sources, "general text": evaluation["general"]})


def several(parts: Mapping[str, Row]) -> Mapping[str, Row]:
    """None where there is one: it would say the same again."""
    return parts if len(parts) > 1 else {}


def of_general(details: Row) -> list[Block]:
    return [
        Text(
            "Short texts of other kinds, from `data/general.jsonl`: what tuning made the writer forget "
            "would show as less than zero. There are a few of each kind, so an interval says little of the "
            "kind as such."
        ),
        _compared(details["general"]),
    ]


def _compared(parts: Mapping[str, Row]) -> Table:
    head = ["", "saved, nats a token", "loss, nats a token", "bits a byte", "perplexity"]
    return Table(head, [[name, *_numbers(row)] for name, row in parts.items()])


def _numbers(row: Row) -> Iterator[str]:
    gain = row["improvement"]
    span = "" if gain["low"] is None else f" ({gain['low']:+.3f} to {gain['high']:+.3f})"
    yield f"{gain['nats_per_token']:+.3f}{span}"
    for name, form in (("loss", ".3f"), ("bits_per_byte", ".3f"), ("perplexity", ".1f")):
        yield f"{row['base'][name]:{form}} → {row['tuned'][name]:{form}}"


def measures(writing: Row) -> Table:
    head = ["", *WRITERS, "human, 5–95 %", "difference (95 % interval)"]
    return Table(head, [_measured(name, row) for name, row in writing["measures"].items()])


def _measured(name: str, row: Row) -> list[str]:
    means = [shown(name, row[writer]) + (" †" if writer in row["outside"] else "") for writer in WRITERS]
    gap, corpus, form = row["difference"], row["corpus"], measure(name).form
    unit = " points" if "%" in form else ""
    change = "" if gap is None else f"{gap['value']:+{form}}"
    if has_interval(row):
        change += f" ({gap['low']:+{form}} to {gap['high']:+{form}})"
    low, high = (shown(name, corpus[end]) for end in ("p5", "p95")) if corpus else ("", "")
    human = f"{low.removesuffix(' %')} to {high}" if corpus else ""
    return [measure(name).name, *means, human, change and change.replace("%", "") + unit]


def shown(name: str, value: float) -> str:
    return f"{value:{measure(name).form}}".replace("%", " %")


def share(value: float) -> str:
    return f"{value:.0%}".replace("%", " %")


def of_measures(writing: Row, opening_words: int) -> list[Block]:
    compared, samples = writing["compared"], writing["samples"]
    table = [[measure(name).name, measure(name).meaning] for name in writing["measures"]]
    return [
        Text(
            f"{samples:,} answers of each writer, same prompts, seeds and settings. Finished, loops and "
            f"words are of whole answers; all else is of their first {opening_words} words, in the "
            f"{compared:,} cases where both wrote as many. Human: held-out texts of the same corpus, of "
            "equal length; one text for what is measured on one, as many texts as there are prompts for "
            "gzip ratio and self-BLEU. † marks a writer's mean outside the human 1st to 99th percentile; "
            "being inside says little, since a mean varies less than single texts do. Intervals draw the "
            "prompts again; two pools have none."
        ),
        measures(writing),
        *([Picture("writing", PICTURE_OF_WRITING)] if pictured(writing) else []),
        Heading("What the measures mean", 3),
        Table(["measure", "meaning"], table),
    ]


PICTURE_OF_WRITING = (
    "Where both writers' means lie among human texts: thin the 1st to 99th percentile, thick the 5th to "
    "95th, a line at the median. Measures in which human texts do not differ are left out."
)


def pictured(writing: Row) -> dict[str, Row]:
    """The measures that have a human range, and one that is not a point."""
    return {
        name: row
        for name, row in writing["measures"].items()
        if row["corpus"] and row["corpus"]["p1"] < row["corpus"]["p99"]
    }


def samples(rows: Sequence[Row], details: Row) -> list[Block]:
    """The first answer to each prompt, in the order of the prompts."""
    first = [row for row in rows if not row.get("sample")]
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in details["sampling"].items())
    more = (
        f"the first {MOST_ANSWERED} of {len(first)} prompts" if len(first) > MOST_ANSWERED else "every prompt"
    )
    blocks: list[Block] = [
        Text(
            f"Both writers have the same prompts, seeds and settings: {settings}. Nothing was picked: here "
            f"is the first answer to {more}. All {len(rows)} are in `data/evaluated/samples.jsonl`."
        )
    ]
    for row in first[:MOST_ANSWERED]:
        written = {writer: (row[writer]["text"], ending(row[writer])) for writer in WRITERS}
        blocks += [
            Heading(row["kind"].capitalize(), 3),
            Answers(row["prompt"], written, f"seed {row['seed']}"),
        ]
    return blocks


def ending(written: Row) -> str:
    return f"{written['tokens']} tokens, {'ended by itself' if written['ended'] else 'cut'}"


def limits(evaluation: Row) -> Points:
    groups = evaluation["improvement"]["groups"]
    few = f", and with {groups} of them is on the narrow side" if 1 < groups < FEW_GROUPS else ""
    return Points(
        [
            "A loss says how well a text is predicted, not how good a story is. No person and no judge has "
            "rated these texts.",
            f"The interval of the losses draws the held-out groups again{few}. It knows nothing of other "
            "training seeds, other corpora or other settings: this is one training run.",
            "Stories are held out by group: a play, a prompt, a book. The base may have read them all the "
            "same before it came here.",
            "Elsewhere the last digits differ: the same bytes are promised for one machine class only.",
        ]
    )
