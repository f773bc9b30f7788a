"""What a run found, in sentences and tables of Markdown. No sentence is stronger than its interval."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storyforge.report.page import cell, plain, quoted, table

Row = Mapping[str, Any]
WRITERS = ("base", "tuned")
UNITS = (
    "Losses are in nats per token: the negative natural logarithm of a token's probability, averaged over "
    "tokens. A loss 0.1 nats lower means 1.1 times the probability, on (geometric) average."
)


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    meaning: str
    form: str = ".3f"


MEASURES = {
    "finished": Measure("finished", "share that stopped by itself at the end of a sentence", ".0%"),
    "words": Measure("words", "words written, up to the limit on tokens", ".1f"),
    "words_ratio": Measure("words per word asked", "words written for each one that the prompt asks", ".2f"),
    "distinct_2": Measure("distinct pairs", "share of 2-word sequences that differ (Li et al. 2016)"),
    "longest_repeat": Measure("longest repeat", "words in the longest sequence that occurs twice", ".1f"),
    "copied_8": Measure("copied eights", "share of 8-word sequences found in the training text", ".2%"),
    "prompt_words": Measure("prompt words", "share of a prompt's uncommon words that the text uses", ".0%"),
    "self_bleu": Measure("self-BLEU", "similarity of texts for different prompts (Zhu et al. 2018)"),
}


def measure(name: str) -> Measure:
    return MEASURES.get(name) or Measure(plain(name.replace("_", " ")), "")


def has_interval(row: Row) -> bool:
    return row["difference"] is not None and row["difference"]["low"] is not None


def contains_zero(gap: Row) -> bool:
    return gap["low"] <= 0 <= gap["high"]


def interval(row: Row, form: str = "+.3f", key: str = "value") -> str:
    """The value with its 95 % interval, where it has one; nothing where there is no value."""
    if row[key] is None:
        return ""
    span = "" if row["low"] is None else f" ({row['low']:{form}} to {row['high']:{form}})"
    return f"{row[key]:{form}}{span}"


def summary(details: Row) -> str:
    """What was found beside the verdict."""
    prompt = f"- **The prompt.** {of_prompts(details['prompt_use'])}\n" if details["prompt_use"] else ""
    return f"{prompt}- **Its own writing.** {of_writing(details['writing'])}"


def of_prompts(use: Row) -> str:
    gap, shares = use["shuffled_cost_gain"], [use[writer]["own_prompt_first"] for writer in WRITERS]
    base, tuned, chance = (f"{100 * share:.0f} %" for share in (*shares, use["chance"]))
    said = (
        f"{use['stories']} stories were scored under their own prompt and under prompts of other stories. "
        f"Their own made {base} of them likeliest for the base, and {tuned} for the tuned writer (by chance: "
        f"{chance}). Another prompt costs the tuned writer {gap['value']:+.3f} nats per token more than it "
        "costs the base"
    )
    if gap["low"] is None:
        return f"{said}; fewer than three groups give no interval."
    said += f" (95 % interval {gap['low']:+.3f} to {gap['high']:+.3f})"
    if contains_zero(gap):
        return f"{said}: the interval contains 0, so the prompt may matter more or less after tuning."
    return f"{said}: the prompt matters **{'more' if gap['low'] > 0 else 'less'}** after tuning."


def of_writing(writing: Row) -> str:
    tested = {name: row for name, row in writing["measures"].items() if has_interval(row)}
    moved = [
        f"{measure(name).name} {shown(name, row['base'])} → {shown(name, row['tuned'])}"
        for name, row in tested.items()
        if not contains_zero(row["difference"])
    ]
    outside = {
        writer: [measure(name).name for name, row in writing["measures"].items() if writer in row["outside"]]
        for writer in WRITERS
    }
    beyond = "; ".join(f"{writer}: {', '.join(names)}" for writer, names in outside.items() if names)
    said = f"Clear differences between the writers: {len(moved)} of {len(tested)} measures"
    if moved:
        said += (
            f" ({', '.join(moved)}), with 95 % intervals that do not contain 0; one in twenty would by chance"
        )
    return f"{said}. Means outside the human range (1st to 99th percentile): {beyond or 'none'}."


def several(parts: Mapping[str, Row]) -> Mapping[str, Row]:
    """None where there is one: it would repeat the line of all."""
    return parts if len(parts) > 1 else {}


def loss_table(parts: Mapping[str, Row]) -> str:
    def numbers(row: Row) -> Iterator[str]:
        yield interval(row["improvement"], key="nats_per_token")
        for name, form in (("loss", ".3f"), ("bits_per_byte", ".3f"), ("perplexity", ".1f")):
            yield f"{row['base'][name]:{form}} → {row['tuned'][name]:{form}}"

    head = ["", "saved, nats per token", "loss, nats per token", "bits per byte", "perplexity"]
    measured = {name: row for name, row in parts.items() if row["improvement"]["nats_per_token"] is not None}
    return table(head, [[plain(name), *numbers(row)] for name, row in measured.items()])


def losses(details: Row) -> str:
    whole = details.get("base_16bit", {"not_measured": ""})
    beside = {} if "not_measured" in whole else {"held-out stories, base in 16 bits": whole}
    parts = {**beside, **several(details["sources"]), "general text": details["general"]}
    return loss_table({"held-out stories": details, **parts})


def measures(writing: Row) -> str:
    head = ["", *WRITERS, "human, 5–95 %", "difference (95 % interval)"]
    made = table(head, [_measured(name, row) for name, row in writing["measures"].items()])
    return f"{made}\n\n{PICTURE}" if pictured(writing) else made


def meanings(writing: Row) -> str:
    named = map(measure, writing["measures"])
    return table(["measure", "meaning"], [[each.name, each.meaning] for each in named])


def _measured(name: str, row: Row) -> list[str]:
    means = [shown(name, row[writer]) + (" †" if writer in row["outside"] else "") for writer in WRITERS]
    gap, corpus, form = row["difference"], row["corpus"], measure(name).form
    unit = " points" if "%" in form else ""
    change = interval(gap, f"+{form}") if gap else ""
    low, high = (shown(name, corpus[end]) for end in ("p5", "p95")) if corpus else ("", "")
    human = f"{low.removesuffix(' %')} to {high}" if corpus else ""
    return [measure(name).name, *means, human, change and change.replace("%", "") + unit]


def shown(name: str, value: float) -> str:
    return f"{value:{measure(name).form}}".replace("%", " %")


PICTURE = """![writing](writing.png)\\
*Both writers' means among human texts. Thin bar: 1st to 99th percentile; thick bar: 5th to 95th; line:
median. Measures in which human texts do not differ are left out.*"""


def pictured(writing: Row) -> dict[str, Row]:
    """The measures that have a human range, and one that is not a point."""
    return {
        name: row
        for name, row in writing["measures"].items()
        if row["corpus"] and row["corpus"]["p1"] < row["corpus"]["p99"]
    }


def pairs(rows: Sequence[Row]) -> str:
    """Each prompt with the answers of both writers."""
    return "\n\n".join(
        f"### {plain(row['kind'].capitalize())}\n\n{quoted(row['prompt'])}\n\n"
        f"{table(WRITERS, [[_answer(row[writer]) for writer in WRITERS]])}\n\nSeed {row['seed']}."
        for row in rows
    )


def _answer(written: Row) -> str:
    return cell(
        written["text"], f"{written['tokens']} tokens, {'ended by itself' if written['ended'] else 'cut'}"
    )


END_ALONE = """\
- The held-out stories are the end of {works}, behind a gap. They share names, places and style with what was
  trained on: the losses show how well that end is predicted, and say nothing about other works.
"""


def limits(details: Row, ends: Sequence[str] = ()) -> str:
    """`ends` are works of which the end is held out, since there is no other."""
    gain = details["improvement"]
    alone = END_ALONE.format(works=" and ".join(map(plain, ends))) if ends else ""
    rest = "Fewer than three groups are held out, so the losses have no intervals. The figures"
    if gain["low"] is not None:
        out = f"each of the {gain['groups']} held-out groups in turn"
        rest = f"The intervals of the losses come from leaving out {out}. They"
    return (
        alone
        + f"""\
- A loss says how well a text is predicted, not how good a story is. No person and no other model has rated
  these texts.
- {rest} do not cover other training seeds, corpora or settings: this is one training run.
- Stories are held out by group: a play, a prompt, a book. The base may still have read them when it was
  trained.
- On another machine class the last digits may differ: the same bytes are promised for one class only."""
    )
