"""What a writer was made of and from: the base, the data and what became of it, choices, hashes, versions."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storyforge.report.page import code, plain, table

Row = Mapping[str, Any]
HASHES = """\
`dvc.lock` records these hashes of what this report was made from; `storyforge pull` fetches the files. A file
cannot contain its own commit: `git log -1 -- reports` shows it, and with it code, choices and lock."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """`choices` is params.yaml; `hashes` names each file or folder with DVC's hash of it."""

    choices: Row
    collected: Row  # source → what was read of it
    accounts: Row  # what became of the drafts
    train: Row
    hashes: Mapping[str, str]

    @property
    def base(self) -> str:
        """What was trained on and is compared with: a base in 4 bits is another than the published one."""
        name = self.choices["model"]["name"].rpartition("/")[2]
        return f"{name} in 4 bits" if self.choices["model"]["quantization"] == "nf4" else name

    @property
    def kept_step(self) -> int:
        """Where validation found the adapter that is kept."""
        return self.train["validation"]["best_step"]


def about(of: Provenance) -> str:
    """What was trained on what, for how long, and what an adapter is."""
    model, train = of.choices["model"], of.train
    *most, last = map(code, of.accounts["sources"])
    sources = f"{', '.join(most)} and {last}" if most else last
    return (
        f"A LoRA adapter of {train['trainable_parameters']:,} parameters on {code(model['name'])}, trained "
        f"on {train['stories']:,} stories from {sources} ({train['tokens']:,} tokens, "
        f"{train['reply_tokens']:,} of them learned) in {train['steps']:,} steps. LoRA (Hu et al. 2021) "
        "keeps the base's weights as they are and trains small matrices that are added to them: the adapter, "
        "which works on this base only."
    )


def training(of: Provenance) -> str:
    val, said = of.train["validation"], ""
    if val["base_loss"] is not None:
        said = (
            f"On {val['stories']:,} validation stories the base has a loss of {val['base_loss']:.3f} nats "
            f"per token. The adapter of step {val['best_step']:,} is kept, with {val['best_loss']:.3f}. "
            "Validation chose this step, so it is not a test of it: the held-out stories above are.\n\n"
        )
    model, train, lora = of.choices["model"], of.choices["train"], of.choices["train"]["lora"]
    epochs = "1 epoch" if train["epochs"] == 1 else f"{train['epochs']} epochs"
    steps = f", at most {train['max_steps']:,} steps" if train["max_steps"] else ""
    adapter = f"LoRA, r {lora['r']}, alpha {lora['alpha']}, dropout {lora['dropout']}, on {lora['targets']}"
    warmup = f"warm-up {100 * train['warmup_share']:g} %"
    settings = {
        "base": f"{code(model['name'])}, from {code(model['origin'])}",
        "adapter": plain(adapter),
        "base weights": f"{model['precision']} precision, quantization {model['quantization']}",
        "length": epochs + steps,
        "batch": f"{train['batch_stories']} stories of at most {train['max_tokens']:,} tokens",
        "learning rate": f"{train['learning_rate']:g}, {train['schedule']}, {warmup}",
        "seed": str(train["seed"]),
    }
    return said + table(["choice", "value"], settings.items())


def data(of: Provenance) -> dict[str, str]:
    """Tables: where the stories come from, which rules dropped drafts, what each split holds."""
    origins = [
        [plain(name), f"{row['stories']:,}", f"{row['words']:,}", plain(row["licence"]), code(row["origin"])]
        for name, row in of.collected.items()
    ]
    rules = [
        [plain(name), rule.replace("_", " "), f"{dropped:,}", f"{100 * dropped / account['drafts']:.2f} %"]
        for name, account in of.accounts["sources"].items()
        for rule, row in account["rules"].items()
        if (dropped := row["dropped"])
    ]
    splits = [
        [split, *(f"{row[column]:,}" for column in ("rows", "words", "groups"))]
        for split, row in of.accounts["splits"].items()
    ]
    dropped_by = ["source", "rule", "dropped", "of the drafts"]
    return {
        "origins": table(["source", "stories read", "words", "licence", "origin"], origins),
        "rules": table(dropped_by, rules) if rules else "No draft was dropped.",
        "splits": table(["split", "stories", "words", "groups"], splits),
    }


def hashes(of: Provenance) -> str:
    """Of all that the report was made from. The machine is not named: reports of equal numbers are equal."""
    rows = [[plain(name), code(md5)] for name, md5 in of.hashes.items()]
    return f"{HASHES}\n\n{table(['input', 'md5, as DVC has it'], rows)}"
