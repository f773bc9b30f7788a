"""Trains a LoRA adapter on the base model; interrupted at any moment, it resumes to the same bytes.

Reads   data/processed/train.jsonl and val.jsonl; the base model that `model` names
Writes  models/tuned (the adapter), metrics/train.json, two loss curves (TSV: one row a step, a validation)
Params  model, train, tracking
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storyforge.core import before_torch as before_torch
from storyforge.core.errors import UserError
from storyforge.core.files import published, published_folder, read_jsonl, write_json
from storyforge.core.launch import launch
from storyforge.core.records import Exchange
from storyforge.core.tracking import tracked
from storyforge.model.device import accelerator, device, machine_class, precision
from storyforge.model.encoding import Encoded
from storyforge.model.loading import attach, load_base, load_encoder, save_adapter
from storyforge.model.params import ModelParams
from storyforge.train.checkpoints import PACKAGE, discard, hashes, installed, run_key, sources, work_directory
from storyforge.train.loop import Run, train
from storyforge.train.memory import out_of_memory
from storyforge.train.schedule import TrainParams, batches, validated


def main(processed: Path, adapter: Path, metrics: Path, train_curve: Path, val_curve: Path) -> dict[str, Any]:
    """Returns the figures that vary between runs."""
    model_params, params = ModelParams.load(), TrainParams.load()
    choices = {"model": model_params.model_dump(mode="json"), "train": params.model_dump(mode="json")}
    if model_params.precision == "auto" and (device().type, precision(model_params)) == ("cpu", "fp32"):
        remark = "no bfloat16 in this processor: trains in float32 with transformers, some times slower"
        print(remark, file=sys.stderr)

    files, code = [processed / "train.jsonl", processed / "val.jsonl"], sources()

    def written() -> dict[str, str]:
        return hashes(files, processed) | hashes(code, PACKAGE)

    started, begin = written(), time.perf_counter()
    machine, processes = machine_class(model_params), int(os.environ.get("WORLD_SIZE", 1))
    key = run_key(params=choices, files=started, installed=installed(), machine=machine, processes=processes)

    with work_directory(key) as work:
        main_process = accelerator(model_params).is_main_process
        with tracked("train", choices, key=key, main=main_process) as track:
            encoder = load_encoder(model_params)
            stories, val = (
                [encoder.exchange(exchange, params.max_tokens) for exchange in read_jsonl(file, Exchange)]
                for file in files
            )
            if not stories:
                raise UserError(f"{files[0]} is empty: metadata.json beside it says what was dropped and why")
            measured = validated(val, params)
            if main_process:
                print(lengths(stories, val, params))
            model = fresh_model(model_params, params)
            run = train(model, stories, measured, model_params, params, work=work, log=track.log)

        if written() != started:
            raise UserError(
                "the code or data of this stage changed while it ran: run it again, so that they match"
            )
        if main_process:
            with published_folder(adapter) as folder:
                save_adapter(folder, run.model, run.best, model_params)
            write_json(metrics, report(run, [*stories, *val], len(measured)))
            _write_tsv(train_curve, run.state.train)
            _write_tsv(val_curve, run.state.val)
            discard(work)
    rate = (run.state.tokens - run.resumed_tokens) / (time.perf_counter() - begin)
    return {
        "machine": machine,
        "micro_batch_tokens": run.params.micro_batch_tokens,  # less than asked for where memory ran out
        "tokens_per_second": round(rate, 1),
    }


def lengths(stories: Sequence[Encoded], val: Sequence[Encoded], params: TrainParams) -> str:
    """How much is trained on, and what of it does not fit."""
    epochs = "1 epoch" if params.epochs == 1 else f"{params.epochs} epochs"
    most = f", at most {params.max_steps:,} steps" if params.max_steps else ""
    said = f"{len(stories):,} stories, {epochs}{most}: steps {len(batches(stories, params)):,}"
    cut = sum(row.shortened for row in (*stories, *val))
    return f"{said}; {cut:,} stories are cut at train.max_tokens = {params.max_tokens:,}" if cut else said


def fresh_model(model_params: ModelParams, params: TrainParams):
    """The base with a fresh adapter, ready to be trained."""
    try:
        model = attach(load_base(model_params), params.lora, params.seed)
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            remedy = "take a smaller base, or on CUDA set model.quantization: nf4"
            raise UserError(f"out of memory while the base is loaded: {remedy}") from None
        raise
    if params.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def report(run: Run, rows: Sequence[Encoded], measured: int) -> dict[str, Any]:
    """What `dvc metrics diff` compares: nothing in it varies when the run is repeated."""
    state, last = run.state, run.state.train[-20:]
    return {
        "steps": state.step,
        "stories": state.stories,
        "tokens": state.tokens,
        "reply_tokens": state.reply_tokens,
        "trainable_parameters": sum(weight.numel() for weight in run.best.values()),
        "shortened_stories": sum(row.shortened for row in rows),
        "train_loss_last_20_steps": round(sum(row["loss"] for row in last) / len(last), 6),
        "validation": {
            "stories": measured,
            "base_loss": round(state.val[0]["loss"], 6) if state.val else None,
            "best_loss": round(state.best_loss, 6) if state.val else None,
            "best_step": state.best_step,
        },
    }


def _write_tsv(path: Path, rows: Sequence[dict[str, float]]) -> None:
    columns = list(rows[0]) if rows else ["step", "loss"]
    with published(path) as file:
        file.write(("\t".join(columns) + "\n").encode())
        for row in rows:
            file.write(("\t".join(f"{row[column]:.6g}" for column in columns) + "\n").encode())


if __name__ == "__main__":
    launch(main)
