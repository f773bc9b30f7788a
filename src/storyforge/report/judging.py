"""The second phase: what the aligned writer is, which rules it keeps, what a judge said of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from storyforge.report.findings import Row, contains_zero, interval
from storyforge.report.judging_tables import (
    MAIN,
    answers,
    drafts,
    gate,
    named,
    pair,
    percent,
    principles,
    rules,
    variety,
    won,
)
from storyforge.report.page import code, plain

CAVEAT = (
    "Checks tell whether a rule was kept, not whether a text is good, and the aligned writer was trained on "
    "pairs that were chosen by the same rules. So a higher score says that rules which a machine can check "
    "are kept more often, and nothing about quality."
)
OBJECTIVES = {
    "dpo": "direct preference optimisation (Rafailov et al. 2023)",
    "simpo": "SimPO (Meng et al. 2024)",
    "sft": "supervised training on accepted revisions",
}
JUDGES = {
    "checks": "the checks themselves: rules kept, no judgement of quality",
    "anthropic": "a model of Anthropic's API, which saw the texts without their writers' names",
    "openai": "a model behind a compatible server, which saw the texts without their writers' names",
}
MOST_PAIRS = 3  # that the page shows; all of them are in data/revised


@dataclass(frozen=True, slots=True)
class Phase:
    """What `revise`, `align` and `judge` left; the names are those of their files."""

    report: Row
    training: Row
    details: Row
    pairs: Sequence[Row] = ()
    texts: Sequence[Row] = ()

    @property
    def is_on(self) -> bool:
        return not self.training.get("off")

    @property
    def silence(self) -> str | None:
        """Why no result of the second phase is reported; None where one is."""
        if not self.is_on:
            return "This run has no second phase (`revise.prompts: 0`): no writer was trained on principles."
        if self.details.get("off"):
            return f"The aligned writer was not compared with the others: {plain(self.details['why'])}."
        if not self.details["fit"]:
            return (
                f"The judge, {JUDGES[self.details['judge']]}, failed its trial on pairs that any reader "
                f"decides at once ({plain(self.details['why'])}), so nothing that it said is reported."
            )
        return None


def summary(phase: Phase) -> str:
    """For the report and the model card: what was found, with the caveat; or why there is nothing."""
    if phase.silence:
        return f"{made(phase)}\n\n{phase.silence}" if phase.is_on else phase.silence
    return f"{made(phase)}\n\n{verdict(phase)}\n\n{CAVEAT}"


def page(phase: Phase, template: str) -> str:
    """judging.md: everything that was found, or why there is nothing."""
    title, _, rest = template.partition("\n\n")
    if phase.silence:
        return f"{title}\n\n{summary(phase)}\n"
    details = phase.details
    return Template(f"{title}\n\n{rest}").substitute(
        summary=summary(phase),
        tried=f"{details['prompts']} held-out prompts, {details['samples']} answers of each writer to each",
        rules=rules(details["scores"]),
        judge=judge(details),
        gate=gate(details["gate"]),
        won=won(details["pairs"]),
        principles=principles(details["pairs"][MAIN]),
        variety=variety(details["diversity"]),
        warnings="\n".join(f"- {plain(each)}" for each in details["warnings"]) or "None.",
        drafts=drafts(phase.report),
        pairs="\n\n".join(map(pair, phase.pairs[:MOST_PAIRS])),
        answers=answers(phase.texts),
    )


def made(phase: Phase) -> str:
    """What the aligned writer is."""
    train = phase.training
    items = ((name, train.get(name)) for name in ("pairs", "revisions", "human_stories"))
    many = " and ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in items if count)
    said = (
        f"*Aligned* is the tuned adapter, trained further for {train['steps']:,} steps by "
        f"{OBJECTIVES[train['objective']['kind']]} on {many}, chosen by the principles of "
        "`data/constitution.yaml`."
    )
    if train["stopped"]:
        guard = code(f"align.guards.{train['stopped']}")
        said += f" {guard} ended the training: the adapter of step {train['kept_step']:,} is kept."
    return said if train["kept_step"] else f"{said} That of step 0 is the tuned adapter itself."


def verdict(phase: Phase) -> str:
    """A list in Markdown; no item is stronger than its interval."""
    details, human = phase.details, phase.training["human_loss"]
    items = [f"**Rules.** {kept(details)}", f"**Single checks.** {moved(details)}"]
    if details["judge"] != "checks":
        items.append(f"**The judge.** {preferred(details)}")
    if said := alike(details["diversity"]):
        items.append(f"**Variety.** {said}")
    rise = human["aligned"] - human["tuned"]
    loss = f"{human['tuned']:.3f} → {human['aligned']:.3f} nats per token ({rise:+.3f})"
    items.append(f"**The price.** Loss on human validation stories: {loss}.")
    return "\n".join(f"- {item}" for item in items)


def kept(details: Row) -> str:
    """The weighted score of aligned and tuned, beside human texts."""
    means = {name: row["score"] for name, row in details["scores"]["writers"].items()}
    gap = details["scores"]["differences"][MAIN]["score"]
    if gap["value"] is None:
        return "No check had an opportunity in the answers of both writers: there is no score to compare."
    score = f"{means['tuned']:.3f} → {means['aligned']:.3f} of 1"
    if means.get("human") is not None:
        score += f"; human texts {means['human']:.3f}"
    span = f"difference {interval(gap)}, 95 % interval; {gap['groups']} prompts"
    if gap["low"] is None:
        return f"Score {score}. Fewer than three prompts give no interval, so nothing is shown."
    if contains_zero(gap):
        return (
            "Whether aligned keeps the rules more often than tuned is not shown: the interval contains 0. "
            f"Score {score} ({span})."
        )
    often = "more" if gap["low"] > 0 else "**less**"
    return f"Aligned keeps the rules that a machine can check {often} often than tuned: {score} ({span})."


def moved(details: Row) -> str:
    """The checks whose interval lies on one side of 0; the fallen ones are named first."""
    gaps = details["scores"]["differences"][MAIN]["checks"]
    clear = {name: gap for name, gap in gaps.items() if gap["low"] is not None and not contains_zero(gap)}
    down, up = ([name for name, gap in clear.items() if (gap["value"] > 0) == is_up] for is_up in (0, 1))
    said = [
        f"{', '.join(f'{named(name)} {interval(clear[name])}' for name in names)} kept {often} often"
        for often, names in (("**less**", down), ("more", up))
        if names
    ]
    if not said:
        return f"No interval of the {len(gaps)} checks lies on one side of 0."
    return f"Of {len(gaps)}, those with an interval on one side of 0: {'; '.join(said)}."


def preferred(details: Row) -> str:
    rate = details["pairs"][MAIN]["win_rate"]
    if rate["value"] is None:
        return "It gave no verdict on aligned and tuned."
    said = f"Aligned wins {percent(rate)} of the comparisons with tuned, ties counting half"
    if rate["low"] is None or rate["low"] <= 0.5 <= rate["high"]:
        return f"{said}: no preference is shown."
    return f"{said}: it prefers **{'aligned' if rate['low'] > 0.5 else 'tuned'}**."


def alike(diversity: Row) -> str:
    """Where the aligned writer lies outside the range of human texts; nothing where it lies inside."""
    found, human, said = diversity["writers"]["aligned"], diversity["human"] or {}, []
    for name, title, low, high in (
        (
            "distinct_2",
            "distinct pairs",
            "Its texts repeat themselves more",
            "Its texts repeat themselves less",
        ),
        ("self_bleu", "self-BLEU", "Its texts are less alike", "Its texts are more alike"),
    ):
        value, span = found[name], human.get(name)
        if value is not None and span and not span["p5"] <= value <= span["p95"]:
            ends = f"{span['p5']:.3f} to {span['p95']:.3f}"
            what = low if value < span["p5"] else high
            said.append(f"{what} than people's: {title} {value:.3f}, people's {ends}.")
    return " ".join(said)


def judge(details: Row) -> str:
    """Who judged, and what a service was paid for it."""
    said, usage = JUDGES[details["judge"]], details["usage"]
    return f"{said}; its {usage['calls']:,} replies cost ${usage['dollars']:.2f}" if usage["calls"] else said
