"""Reads what the other stages made and measured; writes the report, as Markdown and as one HTML file, its
pictures, and the model card.

The card stands here and not beside the adapter: it holds what was measured of the adapter after that was
written and hashed. `storyforge export` puts it where the hub looks for it. Seconds, memory and cost are not
in the report: they differ from run to run, and its bytes do not.
"""

import csv
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from storyforge.core.errors import UserError
from storyforge.core.files import published_folder, read_json, read_jsonl, read_yaml
from storyforge.core.launch import launch
from storyforge.core.records import Exchange
from storyforge.report import findings, pictures, provenance
from storyforge.report.card import card
from storyforge.report.page import Block, Folded, Heading, Picture, Text, markdown, page
from storyforge.report.pictures import DARK, LIGHT, Theme
from storyforge.report.provenance import Lineage

SIDES = ("train", "val", "test")
DOTS_PER_INCH = 160


def report(
    of: Lineage, evaluation: Mapping[str, Any], details: Mapping[str, Any], samples: list[dict[str, Any]]
) -> list[Block]:
    """The report: findings first, then what they rest on."""
    opening_words = of.choices["evaluate"]["opening_words"]
    return [
        Heading(title(of), 1),
        Text(provenance.made_from(of)),
        findings.summary(evaluation, details),
        Heading("How well stories are predicted"),
        findings.losses(evaluation),
        Picture(
            "improvement",
            "What tuning saves, in nats a token, with 95 % intervals. Hollow: one group, no interval.",
        ),
        Heading("General text", 3),
        *findings.of_general(details),
        Heading("What it writes"),
        *findings.of_measures(details["writing"], opening_words),
        Heading("Samples"),
        *findings.samples(samples, details),
        Heading("What this does not show"),
        findings.limits(evaluation),
        Heading("Training"),
        *provenance.training(of),
        Heading("Data"),
        *provenance.data(of),
        Heading("Lineage"),
        *provenance.lineage(of),
    ]


def title(of: Lineage) -> str:
    return f"{of.choices['model']['name'].rpartition('/')[2]}, tuned to tell stories"


def main(
    params: Path,
    raw: Path,
    processed: Path,
    adapter: Path,
    evaluated: Path,
    train_curve: Path,
    val_curve: Path,
    train: Path,
    evaluation: Path,
    reports: Path,
) -> None:
    of = Lineage(
        choices=read_yaml(params),
        collected=read_json(raw / "collection_report.json"),
        accounts=read_json(processed / "metadata.json"),
        train=read_json(train),
        hashes={path.as_posix(): fingerprint(path) for path in (params, raw, processed, adapter, evaluated)},
    )
    numbers, details = read_json(evaluation), read_json(evaluated / "details.json")
    blocks = report(of, numbers, details, list(read_jsonl(evaluated / "samples.jsonl", dict)))
    blocks.append(Folded("Every choice of the run: params.yaml", params.read_text(encoding="utf-8")))
    figures: dict[str, Callable[[Theme], Figure]] = {
        "improvement": partial(pictures.improvement, numbers, details["groups"]),
        "writing": partial(pictures.writing, findings.pictured(details["writing"])),
        "loss": partial(pictures.loss, _read_tsv(train_curve), _read_tsv(val_curve)),
        "funnel": partial(pictures.funnel, of.accounts["sources"]),
        "lengths": partial(pictures.lengths, _lengths(processed)),
    }
    shown = [block.name for block in blocks if isinstance(block, Picture)]
    drawn = {name: (png(figures[name](LIGHT)), png(figures[name](DARK))) for name in shown}
    with published_folder(reports) as folder:
        for name, (light, _) in drawn.items():
            (folder / f"{name}.png").write_bytes(light)
        (folder / "report.html").write_text(page(title(of), blocks, drawn), encoding="utf-8")
        (folder / "report.md").write_text(markdown(blocks), encoding="utf-8")
        (folder / "MODEL_CARD.md").write_text(card(of, numbers, details), encoding="utf-8")


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
        raise UserError(f"{path}: {error.strerror}: run `dvc repro` or `dvc pull`") from None
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    rows = [{"md5": fingerprint(file), "relpath": name} for name, file in files]
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _lengths(processed: Path) -> dict[str, Counter[int]]:
    """Source → words of a story → stories."""
    found: dict[str, Counter[int]] = defaultdict(Counter)
    for side in SIDES:
        for exchange in read_jsonl(processed / f"{side}.jsonl", Exchange):
            found[exchange.source][len(exchange.story.split())] += 1
    return dict(sorted(found.items()))


def _read_tsv(path: Path) -> list[dict[str, float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {name: float(value) for name, value in row.items()}
                for row in csv.DictReader(file, delimiter="\t")
            ]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read: {error}: run `dvc repro train`") from None


if __name__ == "__main__":
    launch(main)
