"""The model card: what the hub shows of an adapter, from the facts of the report."""

import json
import re
from collections.abc import Mapping
from typing import Any

from storyforge.report import findings, provenance
from storyforge.report.page import Block, Heading, Points, Text, markdown

HUB_DATASET = re.compile(r"hub:datasets/([\w.-]+/[\w.-]+)")
METRICS = {"loss": "loss, nats a token", "perplexity": "perplexity a token", "bits_per_byte": "bits a byte"}


def card(of: provenance.Lineage, evaluation: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """Front matter, then Markdown. No licence is claimed: that is for whoever publishes the adapter."""
    return f"---\n{front_matter(of, evaluation)}---\n\n{markdown(_body(of, evaluation, details))}"


def front_matter(of: provenance.Lineage, evaluation: Mapping[str, Any]) -> str:
    """A key a line, its value as JSON: valid YAML whatever stands in it."""
    origins = [row["origin"] for row in of.collected.values()]
    found = [match[1] for match in map(HUB_DATASET.match, origins) if match]
    fields = {
        "base_model": of.choices["model"]["name"],
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "language": ["en"],
        "tags": ["lora", "creative-writing", "storytelling", "storyforge"],
        "datasets": found,
        "model-index": [{"name": "storyforge-adapter", "results": [_result(of, evaluation["tuned"])]}],
    }
    kept = {name: value for name, value in fields.items() if value}
    return "".join(f"{name}: {json.dumps(value, ensure_ascii=False)}\n" for name, value in kept.items())


def _result(of: provenance.Lineage, tuned: Mapping[str, float]) -> dict[str, Any]:
    sources = ", ".join(of.accounts["sources"])
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": f"held-out stories: {sources}", "type": "storyforge", "split": "test"},
        "metrics": [{"type": key, "name": name, "value": tuned[key]} for key, name in METRICS.items()],
    }


def _body(of: provenance.Lineage, evaluation: Mapping[str, Any], details: Mapping[str, Any]) -> list[Block]:
    model = of.choices["model"]
    licences = [f"{name}: {row['licence']} (`{row['origin']}`)" for name, row in of.collected.items()]
    return [
        Heading(f"A storyteller on {model['name'].rpartition('/')[2]}", 1),
        Text(provenance.made_from(of)),
        Heading("Use"),
        Text(
            "Load the base, put the adapter on it with PEFT (`PeftModel.from_pretrained`), and ask through "
            "the base's chat template with the system prompt it was trained with: "
            f"`{model['system'].replace('`', '')}`"
        ),
        *([Text(CONVERTED.format(origin=model["origin"]))] if model["origin"].startswith("package:") else []),
        Heading("Results"),
        findings.summary(evaluation, details),
        findings.losses(evaluation),
        Heading("Limits"),
        findings.limits(evaluation),
        Heading("Data and licences"),
        Points(licences),
        Text(
            "No licence of this adapter is stated: those of the base and of each source bind it. Choose "
            "one that they allow before you publish it."
        ),
        Heading("Lineage"),
        *provenance.lineage(of)[:2],
    ]


CONVERTED = (
    "It was trained on `{origin}`, a copy of the base in another format. On the hub's own weights it was not "
    "measured."
)
