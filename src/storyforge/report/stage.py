"""Writes up what the other stages made and measured.

Reads   params.yaml, data/raw, data/processed, models/tuned, data/evaluated, data/revised, models/aligned,
        data/judged, and the curves metrics/train_loss.tsv, metrics/val_loss.tsv and metrics/align_loss.tsv
Writes  reports: report.md and, of the second phase, judging.md; their pictures; report.html and judging.html
        (each the same as one file); MODEL_CARD.md
Params  all of params.yaml: the report shows every choice

The model card is not beside the adapter: it holds what was measured of the adapter after that was written and
hashed. `storyforge export` puts it where the hub looks for it. Seconds, memory and cost are not in the
report: they differ from run to run, and its bytes do not.
"""

import csv
import hashlib
import io
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from string import Template
from typing import Any

from matplotlib.figure import Figure

from storyforge.core.errors import UserError
from storyforge.core.files import published_folder, read_json, read_jsonl, read_yaml
from storyforge.core.launch import launch
from storyforge.core.records import SIDES
from storyforge.core.splits import read_split
from storyforge.core.text import printable
from storyforge.report import findings, judging, pictures, provenance
from storyforge.report.card import card
from storyforge.report.judging import Phase
from storyforge.report.page import fenced, page, plain
from storyforge.report.provenance import Provenance
from storyforge.report.verdict import in_16_bits, learned, verdict

FOLDER = Path(__file__).parent  # of the templates and the page's style
DOTS_PER_INCH = 160
HOME = re.compile(
    r"(?<![\w.])(?:/home/|/Users/|[A-Za-z]:[\\/]Users[\\/])[^/\\\s\"':,\]}]+|(?<![\w./])/root(?![\w.-])"
)
TEMPLATES = ("report", "judging", "card")
MOST_PAIRS = 16  # prompts whose answers are printed: a page, not a book


def report(
    of: Provenance,
    details: findings.Row,
    samples: list[dict[str, Any]],
    phase: Phase,
    *,
    params: str,
    template: str,
) -> str:
    """The report in Markdown: findings first, then what they rest on."""
    writing, first = details["writing"], [row for row in samples if not row.get("sample")]
    sampling = [f"{name.replace('_', ' ')} {value}" for name, value in details["sampling"].items()]
    many = f"the first {MOST_PAIRS} of {len(first)} prompts"
    return Template(template).substitute(
        base=plain(of.base),
        verdict=verdict(plain(of.base), details, of.kept_step),
        about=provenance.about(of),
        units=findings.UNITS,
        summary=findings.summary(details),
        losses=findings.losses(details),
        phase=judging.summary(phase),
        general=findings.loss_table(details["general_kinds"]),
        answers=f"{writing['samples']:,}",
        opening_words=of.choices["evaluate"]["opening_words"],
        compared=f"{writing['compared']:,}",
        measures=findings.measures(writing),
        meanings=findings.meanings(writing),
        sampling=", ".join(sampling),
        which=many if len(first) > MOST_PAIRS else "every prompt",
        samples=len(samples),
        pairs=findings.pairs(first[:MOST_PAIRS]),
        limits=findings.limits(details, of.accounts.get("ends_held_out", ())),
        training=provenance.training(of),
        **provenance.data(of),
        hashes=provenance.hashes(of),
        params=fenced(params),
    )


def main(
    params: Path,
    raw: Path,
    processed: Path,
    tuned: Path,
    evaluated: Path,
    revised: Path,
    aligned: Path,
    judged: Path,
    train_curve: Path,
    val_curve: Path,
    align_curve: Path,
    reports: Path,
) -> None:
    inputs = (params, raw, processed, tuned, evaluated, revised, aligned, judged)
    curves = [_read_tsv(curve) for curve in (train_curve, val_curve, align_curve)]
    of = Provenance(
        choices=without_home(read_yaml(params)),
        collected=without_home(read_json(raw / "collection_report.json")),
        accounts=read_json(processed / "metadata.json"),
        train=read_json(tuned / "training.json"),
        hashes={path.as_posix(): fingerprint(path) for path in inputs},
    )
    details, phase = read_json(evaluated / "details.json"), _phase(revised, aligned, judged)
    samples = list(read_jsonl(evaluated / "samples.jsonl", dict))
    templates = {name: (FOLDER / f"{name}.template").read_text("utf-8") for name in TEMPLATES}
    choices = without_home(params.read_text(encoding="utf-8"))
    pages = {
        "report": report(of, details, samples, phase, params=choices, template=templates["report"]),
        "judging": judging.page(phase, templates["judging"]),
    }
    figures = {
        "improvement": partial(pictures.improvement, details),
        "writing": partial(pictures.writing, findings.pictured(details["writing"])),
        "loss": partial(pictures.loss, *curves[:2]),
        "funnel": partial(pictures.funnel, of.accounts["sources"]),
        "lengths": partial(pictures.lengths, _lengths(processed)),
        "rules": partial(pictures.rules, phase.details.get("scores")),
        "align_loss": partial(pictures.loss, curves[2], (), "loss"),
    }
    drawn = _drawn(figures, "".join(pages.values()))
    with published_folder(reports) as folder:
        _write(folder, pages, drawn, f"{of.base}, tuned")
        (folder / "MODEL_CARD.md").write_text(card(of, details, phase, templates["card"]), encoding="utf-8")
    found = learned(of.base, details, of.kept_step)
    if of.kept_step and "base_16bit" in details:
        found = f"{found} {in_16_bits(details)}"
    onward = "storyforge compare, or make demo" if of.kept_step else "the report says what to change"
    print(printable(f"{reports / 'report.md'}: {found} Next: {onward}"))


def _write(folder: Path, pages: Mapping[str, str], drawn: Mapping[str, bytes], title: str) -> None:
    """Each page as Markdown and as a page of its own, and the pictures."""
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    for name, content in drawn.items():
        (folder / f"{name}.png").write_bytes(content)
    for name, text in pages.items():
        html = page(title, text.replace("](judging.md)", "](judging.html)"), drawn, style)
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def _drawn(figures: Mapping[str, Callable[[], Figure]], text: str) -> dict[str, bytes]:
    """Those that the text shows: `writing` has nothing to show for a small corpus."""
    return {name: png(draw()) for name, draw in figures.items() if f"]({name}.png)" in text}


def _phase(revised: Path, aligned: Path, judged: Path) -> Phase:
    pairs = read_jsonl(revised / "pairs.jsonl", dict)
    return Phase(
        read_json(revised / "report.json"),
        read_json(aligned / "training.json"),
        read_json(judged / "details.json"),
        list(islice(pairs, judging.MOST_PAIRS)),
        list(read_jsonl(judged / "texts.jsonl", dict)),
    )


def without_home(value: Any) -> Any:
    """The value with `~` for every home folder in its texts: a report is published, user names need not be.

    By its form, not by asking whose home it is: the report is the same wherever it is made.
    """
    if isinstance(value, str):
        return HOME.sub("~", value)
    if isinstance(value, dict):
        return {without_home(key): without_home(each) for key, each in value.items()}
    return [*map(without_home, value)] if isinstance(value, list) else value


def png(figure: Figure) -> bytes:
    """The same bytes for the same figure: matplotlib would sign it with its version."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def fingerprint(path: Path) -> str:
    """The md5 that dvc.lock records: of a file's bytes, or of a folder's list of files and their md5."""
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: run `dvc repro`") from None
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    rows = [{"md5": fingerprint(file), "relpath": name} for name, file in files]
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _lengths(processed: Path) -> dict[str, Counter[int]]:
    """Source → words of a story → stories."""
    found: dict[str, Counter[int]] = defaultdict(Counter)
    for side in SIDES:
        for exchange in read_split(processed, side):
            found[exchange.source][len(exchange.story.split())] += 1
    return dict(sorted(found.items()))


def _read_tsv(path: Path) -> list[dict[str, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            return [{name: float(row[name]) for name in ("step", "loss")} for row in rows]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: cannot be read: {error}: run `dvc repro`") from None


if __name__ == "__main__":
    launch(main)
