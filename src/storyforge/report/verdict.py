"""What a run comes to, in plain words: what the writer learned, what it lost, what to do next.

Derived from the figures and their intervals alone; no sentence is stronger than its interval.
"""

from storyforge.report.findings import Row, contains_zero, has_interval, shown

LEAST_COPIED = 0.01  # share of copied eights; where the whole interval is above, it is more than set phrases
LEAST_LOST = 0.05  # nats per token of general text; where the whole interval is worse, it is worth mending
WEAKER = (
    "train for fewer steps (`train.max_steps`, `train.epochs`), at a lower `train.learning_rate`, or on more "
    "stories"
)


def verdict(base: str, details: Row, kept_step: int) -> str:
    """A list in Markdown; `kept_step` is where validation found the adapter that is kept."""
    return f"{changes(base, details, kept_step)}\n- **Next.** {advice(details, kept_step)}"


def changes(base: str, details: Row, kept_step: int) -> str:
    """The verdict without its advice, as the model card has it."""
    said = f"- **Learned.** {learned(base, details, kept_step)}"
    if not kept_step:
        return said
    whole = f"- **In 16 bits.** {in_16_bits(details)}\n" if "base_16bit" in details else ""
    return f"{said}\n{whole}- **Lost.** {lost(details)}"


def learned(base: str, details: Row, kept_step: int) -> str:
    if not kept_step:
        return (
            f"Nothing: no validation found {base} better than before its first step, so that of step 0 "
            "is kept, which changes nothing. The tuned writer is the base."
        )
    gain, text = details["improvement"], "predicting stories that it was not trained on"
    groups = f"{gain['groups']:,} {'group' if gain['groups'] == 1 else 'groups'}"
    tested = f"{text} ({details['stories']:,} held-out stories of {groups})"
    unknown = f"This run does not show whether tuning made {base} better or worse at {tested}"
    if gain["nats_per_token"] is None:
        return (
            f"This run does not show whether tuning made {base} better or worse at {text}: with fewer than "
            "three works all are trained on, so there is no loss to compare."
        )
    if gain["low"] is None:
        return f"{unknown}: an interval needs three groups."
    if contains_zero(gain):
        return f"{unknown}: {_around_zero(gain)}."
    return f"Tuning made {base} {'better' if gain['low'] > 0 else 'worse'} at {tested}{_by(gain)}."


def in_16_bits(details: Row) -> str:
    """Of an adapter on a base in 4 bits: how the two compare with the base as it was published."""
    row = details["base_16bit"]
    if why := row.get("not_measured"):
        return (
            "Trained on and compared with is the base in 4 bits. The base in 16 bits was not measured "
            f"({why}), so part of what was learned may only make up for what the 4 bits cost."
        )
    whole, coarse, gain = row["base"]["loss"], details["base"]["loss"], row["improvement"]
    said = (
        f"On the same stories the base in 16 bits has a loss of {whole:.3f} nats per token, in 4 bits "
        f"{coarse:.3f}: the 4 bits alone change it by {coarse - whole:+.3f}. Against the base in 16 bits the "
        "tuned writer, itself in 4 bits,"
    )
    if gain["low"] is None:
        return f"{said} saves {gain['nats_per_token']:+.3f}; an interval needs three groups."
    if contains_zero(gain):
        return f"{said} is not shown to be better or worse: {_around_zero(gain)}."
    return f"{said} is {'better' if gain['low'] > 0 else '**worse**'}{_by(gain)}."


def lost(details: Row) -> str:
    """How much of what it writes is copied, and what became of general text."""
    copied, general = _copied_and_general(details)
    if general["low"] is None:
        said = "There are too few general texts to say whether it became worse at them."
    elif contains_zero(general):
        said = f"Whether it became worse at general text is not shown: {_around_zero(general)}."
    elif general["low"] > 0:
        said = f"At general text it did not become worse but better{_by(general)}."
    else:
        said = f"**It became worse at general text**{_by(general)}."
    return f"{_copying(copied)} {said}"


def advice(details: Row, kept_step: int) -> str:
    """What to change; then where to look."""
    gain, said = details["improvement"], ""
    if not kept_step:
        return (
            "Lower `train.learning_rate`, validate more often (`train.validate_every`), or train on more "
            "stories, and run `dvc repro` again."
        )
    if too_strong(details):
        said = f"Tuning was too strong: {WEAKER}. "
    elif gain["low"] is None:
        said = "An interval needs three works held out, which thirty works or more give: add works. "
    elif gain["high"] < 0:
        said = f"Tuning did harm: {WEAKER}. "
    elif contains_zero(gain):
        said = "More stories or more steps may teach more; more held-out groups make the interval narrower. "
    return f"{said}Read the samples below, then let it write: `storyforge compare`, or `make demo`."


def too_strong(details: Row) -> bool:
    """It clearly copies, or clearly became worse at general text, and by an amount that matters."""
    copied, general = _copied_and_general(details)
    copies = copied is not None and has_interval(copied) and copied["difference"]["low"] > LEAST_COPIED
    return copies or (general["high"] is not None and general["high"] < -LEAST_LOST)


def _copied_and_general(details: Row) -> tuple[Row | None, Row]:
    return details["writing"]["measures"].get("copied_8"), details["general"]["improvement"]


def _copying(row: Row | None) -> str:
    if row is None:
        return "Copying was not measured: too few answers are long enough."
    base, tuned = (shown("copied_8", row[writer]) for writer in ("base", "tuned"))
    if not row["tuned"]:
        return "In the answers that were compared, it has no eight words in a row from the training text."
    said = f"{tuned} of the eight-word runs that it writes stand in the training text, of the base's {base}"
    if not has_interval(row):
        return f"{said}; fewer than three prompts give no interval."
    gap = row["difference"]
    span = f"95 % interval of the difference: {100 * gap['low']:+.1f} to {100 * gap['high']:+.1f} points"
    if contains_zero(gap):
        return f"{said}: no clear difference ({span})."
    return f"{'**It copies**: ' if gap['low'] > 0 else ''}{said} ({span})."


def _around_zero(gain: Row) -> str:
    low, high = (f"{gain[end]:+.3f}" for end in ("low", "high"))
    return f"it saves {low} to {high} nats per token (95 % interval), which contains 0"


def _by(gain: Row) -> str:
    near, far = sorted((abs(gain["low"]), abs(gain["high"])))
    return f", by {abs(gain['nats_per_token']):.3f} nats per token (95 % interval {near:.3f} to {far:.3f})"
