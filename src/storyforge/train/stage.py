"""Reads the processed exchanges; writes a LoRA adapter, its metrics and its loss curves.

Interrupted at any moment, the same command goes on from the newest valid checkpoint to the same bytes.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from storyforge.core import before_torch as before_torch
from storyforge.core.errors import UserError
from storyforge.core.files import published, published_folder, read_jsonl, write_json
from storyforge.core.launch import launch
from storyforge.core.records import Exchange
from storyforge.core.tracking import tracked
from storyforge.model.device import accelerator, machine_class
from storyforge.model.encoding import Encoded, Encoder
from storyforge.model.loading import ModelParams, load_encoder, save_adapter
from storyforge.train.checkpoints import PACKAGE, discard, hashes, installed, run_key, sources, work_directory
from storyforge.train.loop import Run
from storyforge.train.memory import trained
from storyforge.train.schedule import TrainParams, validated


def train(
    encoder: Encoder,
    splits: dict[str, Sequence[Exchange]],
    model_params: ModelParams,
    params: TrainParams,
    *,
    work: Path,
    log: Callable[[int, dict[str, float]], None],
) -> tuple[Run, dict[str, Any]]:
    """The finished run, whose `best` is the adapter to keep, and its report."""
    stories = {
        name: [encoder.exchange(exchange, params.max_tokens) for exchange in exchanges]
        for name, exchanges in splits.items()
    }
    if not stories["train"]:
        raise UserError(
            "data/processed/train.jsonl is empty: metadata.json beside it says what was dropped and why"
        )
    val = validated(stories["val"], params)
    run = trained(stories["train"], val, model_params, params, work=work, log=log)
    return run, report(run, stories, val)


def report(run: Run, stories: dict[str, list[Encoded]], val: Sequence[Encoded]) -> dict[str, Any]:
    """What `dvc metrics diff` compares: nothing in it varies when the run is repeated."""
    state, last = run.state, run.state.train[-20:]
    return {
        "steps": state.step,
        "stories": state.stories,
        "tokens": state.tokens,
        "reply_tokens": state.reply_tokens,
        "trainable_parameters": sum(weight.numel() for weight in run.best.values()),
        "shortened_stories": sum(row.shortened for rows in stories.values() for row in rows),
        "train_loss_last_20_steps": round(sum(row["loss"] for row in last) / len(last), 6),
        "validation": {
            "stories": len(val),
            "base_loss": round(state.val[0]["loss"], 6) if state.val else None,
            "best_loss": round(state.best_loss, 6) if state.val else None,
            "best_step": state.best_step,
        },
    }


def main(processed: Path, adapter: Path, metrics: Path, train_curve: Path, val_curve: Path) -> dict[str, Any]:
    model_params, params = ModelParams.load(), TrainParams.load()
    choices = {"model": model_params.model_dump(mode="json"), "train": params.model_dump(mode="json")}
    files, code = [processed / "train.jsonl", processed / "val.jsonl"], sources()

    def written() -> dict[str, str]:
        return hashes(files, processed) | hashes(code, PACKAGE)

    started, begin = written(), time.perf_counter()
    key = run_key(
        params=choices,
        files=started,
        installed=installed(),
        machine=machine_class(model_params),
        processes=int(os.environ.get("WORLD_SIZE", 1)),
    )
    splits = {file.stem: list(read_jsonl(file, Exchange)) for file in files}
    with work_directory(key) as work:
        main_process = accelerator(model_params).is_main_process
        with tracked("train", choices, key=key, main=main_process) as track:
            encoder = load_encoder(model_params)
            run, figures = train(encoder, splits, model_params, params, work=work, log=track.log)
        if written() != started:
            raise UserError(
                "the code or data of this stage changed while it ran: run it again, so that they match"
            )
        if run.accelerator.is_main_process:
            with published_folder(adapter) as folder:
                save_adapter(folder, run.model, run.best, model_params)
            write_json(metrics, {**figures, "machine": machine_class(model_params)})
            _write_tsv(train_curve, run.state.train)
            _write_tsv(val_curve, run.state.val)
            discard(work)
    seconds = time.perf_counter() - begin
    rate = (run.state.tokens - run.resumed_tokens) / seconds
    return {
        "machine": machine_class(model_params),
        "micro_batch_tokens": run.params.micro_batch_tokens,  # what fitted, not what was wished
        "tokens_per_second": round(rate, 1),
    }


def _write_tsv(path: Path, rows: Sequence[dict[str, float]]) -> None:
    columns = list(rows[0]) if rows else ["step", "loss"]
    with published(path) as file:
        file.write(("\t".join(columns) + "\n").encode())
        for row in rows:
            file.write(("\t".join(f"{row[column]:.6g}" for column in columns) + "\n").encode())


if __name__ == "__main__":
    launch(main)
