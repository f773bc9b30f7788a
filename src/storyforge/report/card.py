"""The model card, which the hub shows beside an adapter."""

import json
import re
from string import Template
from typing import Any

from storyforge.report import findings, provenance
from storyforge.report.page import code, plain
from storyforge.report.provenance import Provenance

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


def card(of: Provenance, details: findings.Row, template: str) -> str:
    """Front matter, then Markdown. No licence is claimed: that is for whoever publishes the adapter."""
    model, sources = of.choices["model"], of.collected.items()
    licences = [f"- {plain(name)}: {plain(row['licence'])} ({code(row['origin'])})" for name, row in sources]
    converted = CONVERTED.format(origin=code(model["origin"]))
    return Template(template).substitute(
        front_matter=front_matter(of, details["tuned"]),
        base=plain(of.base),
        made_from=provenance.made_from(of),
        system=code(model["system"]),
        converted=converted if model["origin"].startswith("package:") else "",
        units=findings.UNITS,
        summary=findings.summary(details),
        losses=findings.losses(details),
        limits=findings.limits(details),
        licences="\n".join(licences),
        hashes=provenance.hashes(of),
    )


def front_matter(of: Provenance, tuned: findings.Row) -> str:
    """A key a line, its value as JSON: valid YAML whatever it contains."""
    sources = ", ".join(of.accounts["sources"])
    result: dict[str, Any] = {
        "task": {"type": "text-generation"},
        "dataset": {"name": f"held-out stories: {sources}", "type": "storyforge", "split": "test"},
        "metrics": [{"type": key, "name": name, "value": tuned[key]} for key, name in METRICS.items()],
    }
    origins = [HUB_DATASET.match(row["origin"]) for row in of.collected.values()]
    fields = {
        "base_model": of.choices["model"]["name"],
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "language": ["en"],
        "tags": ["lora", "creative-writing", "storytelling", "storyforge"],
        "datasets": [match[1] for match in origins if match],
        "model-index": [{"name": "storyforge-adapter", "results": [result]}],
    }
    kept = {name: value for name, value in fields.items() if value}
    return "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in kept.items())
