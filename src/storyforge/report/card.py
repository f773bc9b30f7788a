"""The model card, which the hub shows beside an adapter."""

import json
import re
from string import Template

from storyforge.report import findings, judging, provenance
from storyforge.report.page import code, plain
from storyforge.report.provenance import Provenance
from storyforge.report.usage import usage
from storyforge.report.verdict import changes

HUB_DATASET = re.compile(r"hub:datasets/([\w.-]+/[\w.-]+)")
METRICS = {
    "loss": "loss, nats per token",
    "perplexity": "perplexity per token",
    "bits_per_byte": "bits per byte",
}
CONVERTED = (
    "It was trained on {origin}, a copy of the base in another format. With the hub's own weights it was not "
    "measured."
)


def card(of: Provenance, details: findings.Row, phase: judging.Phase, template: str) -> str:
    """Front matter, then Markdown. No licence is claimed: that is for whoever publishes the adapter.

    In the front matter a value is JSON on one line: valid YAML whatever it contains.
    """
    model, sources = of.choices["model"], of.collected.items()
    hub = [HUB_DATASET.match(row["origin"]) for _, row in sources]
    tested = f"held-out stories: {', '.join(of.accounts['sources'])}"
    result = {
        "task": {"type": "text-generation"},
        "dataset": {"name": tested, "type": "storyforge", "split": "test"},
        "metrics": [
            {"type": m, "name": name, "value": value}
            for m, name in METRICS.items()
            if (value := details["tuned"][m]) is not None  # nothing was held out
        ],
    }
    licences = [f"- {plain(name)}: {plain(row['licence'])} ({code(row['origin'])})" for name, row in sources]
    converted = CONVERTED.format(origin=code(model["origin"]))
    return Template(template).substitute(
        base_model=json.dumps(model["name"]),
        datasets=json.dumps([match[1] for match in hub if match]),
        model_index=json.dumps([{"name": "storyforge-adapter", "results": [result]}]),
        base=plain(of.base),
        about=provenance.about(of),
        usage=usage(model, of.choices["train"]["lora"]["r"]),
        converted=converted if model["origin"].startswith("package:") else "",
        units=findings.UNITS,
        summary=f"{changes(plain(of.base), details, of.kept_step)}\n{findings.summary(details)}",
        losses=findings.losses(details),
        phase=judging.summary(phase),
        limits=findings.limits(details, of.accounts.get("ends_held_out", ())),
        licences="\n".join(licences),
        hashes=provenance.hashes(of),
    )
