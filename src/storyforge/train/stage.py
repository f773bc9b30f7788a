"""Trains a LoRA adapter on the base model; interrupted at any moment, it resumes to the same bytes.

Reads   data/processed (train.jsonl, val.jsonl); the base model that `model` names
Writes  models/tuned (the adapter, and training.json), metrics/train.json: the few figures of it to compare;
        two loss curves (TSV: one row a step, a validation)
Params  model, train, tracking
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from storyforge.core import before_torch as before_torch
from storyforge.core.errors import UserError
from storyforge.core.files import published_folder, write_json
from storyforge.core.splits import split_files
from storyforge.model.encoding import Encoded, singly
from storyforge.model.loading import attach, load_base, load_encoder, save_adapter
from storyforge.model.params import LoraParams, ModelParams
from storyforge.model.processes import launch_all
from storyforge.train.checkpoints import discard
from storyforge.train.job import foretelling, job, lengths, ready, write_tsv
from storyforge.train.loop import train
from storyforge.train.params import TrainParams
from storyforge.train.run import Run, trainable
from storyforge.train.schedule import batches, validated
from storyforge.train.tokens import encoded_once


def main(processed: Path, adapter: Path, metrics: Path, train_curve: Path, val_curve: Path) -> dict[str, Any]:
    """Returns the figures that vary between runs."""
    model_params, params = ModelParams.load(), TrainParams.load()
    choices = {"model": model_params.model_dump(mode="json"), "train": params.model_dump(mode="json")}
    files = {name: split_files(processed, name) for name in ("train", "val")}
    with job("train", choices, [*chain(*files.values())], model_params, same_bits=params.same_bits) as this:
        encoder = load_encoder(model_params)
        encode = partial(encoder.exchange, max_tokens=params.max_tokens)
        stories, val = encoded_once(this.work, files, encode, this.require_unchanged)
        if not stories:
            empty = files["train"][0]
            raise UserError(f"{empty} is empty: metadata.json beside it says what was dropped and why")
        plan, measured = [singly(rows) for rows in batches(stories, params)], validated(val, params)
        if this.main:
            print(*encoder.chat.remarks, lengths("stories", len(stories), [*stories, *val], params), sep="\n")
        model = fresh_model(model_params, params)
        log = foretelling(this.log, len(plan), may_end=params.patience is not None) if this.main else this.log
        run = train(model, plan, singly(measured), model_params, params, work=this.work, log=log)
        this.require_unchanged()
        if this.main:
            whole, compared = report(run, [*stories, *val], len(measured))
            with published_folder(adapter) as folder:
                save_adapter(folder, run.model, run.best, model_params)
                write_json(folder / "training.json", whole | this.unpinned(model_params))
            write_json(metrics, compared)
            write_tsv(train_curve, run.state.train)
            write_tsv(val_curve, run.state.val)
            discard(this.work)
    return this.varying(run)


def fresh_model(model_params: ModelParams, params: TrainParams):
    """The base with a fresh adapter, ready to be trained."""

    def make():
        base = load_base(model_params)
        _refuse_targets(base, params.lora)
        return attach(base, params.lora, params.seed)

    return ready(make, params)


def _refuse_targets(base, lora: LoraParams) -> None:
    """UserError for a name that no layer has, or that of the head or the embedding.

    The loss forms its gradient as if both were frozen, and PEFT passes over a name that it does not find.
    """
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    for target in () if lora.targets == "all-linear" else lora.targets:
        meant = [module for name, module in base.named_modules() if f".{name}".endswith(f".{target}")]
        if not meant or any(module in ends for module in meant):
            raise UserError(
                f"params.yaml: train.lora.targets: '{target}' is not a linear layer inside the model's "
                "blocks: name such layers (q_proj, down_proj), or set all-linear"
            )


def report(run: Run, rows: Sequence[Encoded], measured: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that is told of the training, and the little of it that a person compares between experiments.

    Nothing in either varies when the run is repeated.
    """
    state, last = run.state, run.state.train[-20:]
    compared = {
        "steps": state.step,
        "stories": state.stories,
        "tokens": state.tokens,
        "validation": {
            "base_loss": round(state.val[0]["loss"], 6) if state.val else None,
            "best_loss": round(state.best_loss, 6) if state.val else None,
        },
    }
    more = {
        "reply_tokens": state.reply_tokens,
        "trainable_parameters": sum(weight.numel() for weight in trainable(run.model)),
        "shortened_stories": sum(row.shortened for row in rows),
        "train_loss_last_20_steps": round(sum(row["loss"] for row in last) / len(last), 6),
        "validation": compared["validation"] | {"stories": measured, "best_step": state.best_step},
    }
    return compared | more, compared


if __name__ == "__main__":
    launch_all(main)
