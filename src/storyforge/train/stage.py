"""Trains a LoRA adapter on the base model; interrupted at any moment, it resumes to the same bytes.

Reads   data/processed/train.jsonl and val.jsonl; the base model that `model` names
Writes  models/tuned (the adapter, and training.json), metrics/train.json: the few figures of it to compare;
        two loss curves (TSV: one row a step, a validation)
Params  model, train, tracking
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from storyforge.core import before_torch as before_torch
from storyforge.core.errors import UserError
from storyforge.core.files import published, published_folder, read_jsonl, write_json
from storyforge.core.launch import launch
from storyforge.core.records import Exchange
from storyforge.core.tracking import tracked
from storyforge.engine import kernels
from storyforge.model.device import accelerator, device, machine_class, precision
from storyforge.model.encoding import Encoded, Encoder
from storyforge.model.loading import attach, base_digest, load_base, load_encoder, save_adapter
from storyforge.model.params import LoraParams, ModelParams
from storyforge.train.checkpoints import (
    PACKAGE,
    discard,
    explain_start,
    has_checkpoint,
    hashes,
    packages,
    run_key,
    sources,
    work_directory,
)
from storyforge.train.loop import Log, Run, train, trainable
from storyforge.train.memory import out_of_memory
from storyforge.train.schedule import TrainParams, steps, validated

WATCHED = 4  # steps, before it is said how long the others will take


def main(processed: Path, adapter: Path, metrics: Path, train_curve: Path, val_curve: Path) -> dict[str, Any]:
    """Returns the figures that vary between runs."""
    model_params, params = ModelParams.load(), TrainParams.load()
    choices = {"model": model_params.model_dump(mode="json"), "train": params.model_dump(mode="json")}
    _say_if_slow(model_params)
    files, code = [processed / "train.jsonl", processed / "val.jsonl"], sources()

    def written() -> dict[str, str | None]:
        return hashes(files, processed) | hashes(code, PACKAGE) | {"base": base_digest(model_params)}

    started, begin = written(), time.perf_counter()
    machine = machine_class(model_params)
    parts = {"params": choices, "files": started, "packages": packages(), "machine": machine}
    parts["processes"] = int(os.environ.get("WORLD_SIZE", 1))
    key = run_key(**parts)
    _refuse_slower(parts)
    with work_directory(key) as work:
        if main_process := accelerator(model_params).is_main_process:
            explain_start(work, parts)
        with tracked("train", choices, key=key, main=main_process) as track:
            encoder = load_encoder(model_params)
            stories, val = (_encoded(file, encoder, params) for file in files)
            if not stories:
                raise UserError(f"{files[0]} is empty: metadata.json beside it says what was dropped and why")
            measured = validated(val, params)
            if main_process:
                print(lengths(stories, val, params))
            model = fresh_model(model_params, params)
            log = foretelling(track.log, steps(len(stories), params)[0]) if main_process else track.log
            run = train(model, stories, measured, model_params, params, work=work, log=log)
        if written() != started:
            raise UserError(
                "the code, data or base of this stage changed while it ran: run it again, so that they match"
            )
        if main_process:
            whole, compared = report(run, [*stories, *val], len(measured))
            with published_folder(adapter) as folder:
                save_adapter(folder, run.model, run.best, model_params)
                unpinned = {} if model_params.sha256 else {"base_sha256": started["base"]}
                write_json(folder / "training.json", whole | unpinned)
            write_json(metrics, compared)
            _write_tsv(train_curve, run.state.train)
            _write_tsv(val_curve, run.state.val)
            discard(work)
    rate = (run.state.tokens - run.resumed_tokens) / (time.perf_counter() - begin)
    return {
        # Where memory ran out, batches were cut finer from some step on: another order of summation.
        "machine": {**machine, "micro_batch_tokens": run.state.micro_batch_tokens},
        "tokens_per_second": round(rate, 1),
    }


def _encoded(file: Path, encoder: Encoder, params: TrainParams) -> list[Encoded]:
    return [encoder.exchange(exchange, params.max_tokens) for exchange in read_jsonl(file, Exchange)]


def _say_if_slow(model_params: ModelParams) -> None:
    if model_params.precision == "auto" and (device().type, precision(model_params)) == ("cpu", "fp32"):
        remark = "no bfloat16 in this processor: trains in float32 with transformers, some times slower"
        print(remark, file=sys.stderr)


def _refuse_slower(parts: dict[str, Any]) -> None:
    """UserError where this run was begun with the compiled kernels, and they cannot be used now.

    Started over without them it would come to other bytes.
    """
    machine = parts["machine"]
    for fast in set() if machine["kernels"] else kernels.kept():
        if has_checkpoint(key := run_key(**parts | {"machine": {**machine, "kernels": fast}})):
            raise UserError(
                f"checkpoints {key} were made with the compiled kernels, which cannot be used now: make them "
                "work (a line above says what is wrong), or delete that folder to start over without them"
            )


def lengths(stories: Sequence[Encoded], val: Sequence[Encoded], params: TrainParams) -> str:
    """How much is trained on, and what of it does not fit."""
    count, whole = steps(len(stories), params)
    epochs = "1 epoch" if params.epochs == 1 else f"{params.epochs} epochs"
    of = f" of {whole:,}" if count < whole else ""
    said = f"{len(stories):,} stories, {epochs}: {count:,}{of} steps of {params.batch_stories}"
    said += ", as train.max_steps asks" if of else ""
    cut = sum(row.shortened for row in (*stories, *val))
    return f"{said}; {cut:,} stories are cut at train.max_tokens = {params.max_tokens:,}" if cut else said


def foretelling(log: Log, last: int) -> Log:
    """`log`, and after this process's first steps a line on how long those up to the `last` will take."""
    ends: list[float] = []

    def note(step: int, figures: dict[str, float]) -> None:
        log(step, figures)
        if "learning_rate" not in figures or len(ends) == WATCHED:  # a validation, or told
            return
        ends.append(time.perf_counter())
        if len(ends) == WATCHED and step < last:
            # The first step is left out: it is slower.
            minutes = (ends[-1] - ends[0]) / (WATCHED - 1) * (last - step) / 60
            tqdm.write(f"about {max(1, round(minutes))} min for the steps to come, validations aside")

    return note


def fresh_model(model_params: ModelParams, params: TrainParams):
    """The base with a fresh adapter, ready to be trained."""
    try:
        base = load_base(model_params)
        _refuse_targets(base, params.lora)
        model = attach(base, params.lora, params.seed)
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            remedy = "take a smaller base, or on CUDA set model.quantization: nf4"
            raise UserError(f"out of memory while the base is loaded: {remedy}") from None
        raise
    if params.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model


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


def _write_tsv(path: Path, rows: Sequence[dict[str, float]]) -> None:
    columns = list(rows[0]) if rows else ["step", "loss"]
    with published(path) as file:
        file.write(("\t".join(columns) + "\n").encode())
        for row in rows:
            file.write(("\t".join(f"{row[column]:.6g}" for column in columns) + "\n").encode())


if __name__ == "__main__":
    launch(main)
