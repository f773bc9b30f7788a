"""What a stage that trains does around its loop: the key of the run, its work directory, what it says."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from tqdm import tqdm

from storyforge.core.cache import digest
from storyforge.core.errors import UserError
from storyforge.core.files import published
from storyforge.core.tracking import tracked
from storyforge.engine import kernels
from storyforge.model.device import accelerator, device, precision, require_machine
from storyforge.model.encoding import Encoded
from storyforge.model.memory import out_of_memory
from storyforge.model.params import ModelParams
from storyforge.train.checkpoints import explain_start, has_checkpoint, work_directory
from storyforge.train.keys import made_from, run_key, run_parts, sources
from storyforge.train.loop import Log
from storyforge.train.run import Run
from storyforge.train.schedule import LoopParams, steps

WATCHED = 4  # steps, before it is said how long the others will take


@dataclass(frozen=True)
class Job:
    work: Path
    main: bool  # whether this process is the one that writes
    written: Mapping[str, str | None]  # sha256 of all that the run is made from
    observed: Callable[[], Mapping[str, str | None]]  # the same, now
    machine: Mapping[str, Any]
    begin: float
    log: Log

    def require_unchanged(self) -> None:
        if self.observed() != self.written:
            raise UserError(
                "the code, data or base of this stage changed while it ran: run it again, so that they match"
            )

    def unpinned(self, model_params: ModelParams) -> dict[str, str | None]:
        """The base's digest where the params name none."""
        return {} if model_params.sha256 else {"base_sha256": self.written["base"]}

    def varying(self, run: Run) -> dict[str, Any]:
        """The figures that vary between runs."""
        rate = (run.state.tokens - run.resumed_tokens) / (time.perf_counter() - self.begin)
        counts = run.state.processes
        return {
            # Where memory ran out, batches were cut finer from some step on: another order of summation.
            "machine": {**self.machine, "micro_batch_tokens": run.state.micro_batch_tokens}
            | ({"processes": counts} if len(counts) > 1 else {}),
            "tokens_per_second": round(rate, 1),
        }


@contextmanager
def job(
    stage: str,
    choices: dict[str, Any],
    files: Sequence[Path],
    model_params: ModelParams,
    *,
    same_bits: bool = True,
) -> Iterator[Job]:
    """A run of `stage` under the key of its params, files, code, packages, base and machine.

    Without `same_bits` it is one run whatever the number of its processes.
    """
    _look_at_machine(model_params)
    code = sources()

    def observed() -> dict[str, str | None]:
        return made_from(_data(files), model_params, code)

    written, begin = observed(), time.perf_counter()
    parts = run_parts(model_params, params=choices, files=written)
    machine = parts["machine"]
    if not same_bits:
        parts["machine"] = {name: value for name, value in machine.items() if name != "processes"}
    key = run_key(**parts)
    _refuse_slower(parts)
    with work_directory(key) as work:
        if main := accelerator(model_params).is_main_process:
            explain_start(work, parts)
        with tracked(stage, choices, key=key, main=main) as track:
            yield Job(work, main, written, observed, machine, begin, track.log)


def _data(files: Sequence[Path]) -> dict[str, str]:
    try:
        return {f"{file.parent.name}/{file.name}": digest(file) for file in files}
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}: run `dvc repro`") from None


def _look_at_machine(model_params: ModelParams) -> None:
    """UserError where it cannot do what is asked for, before anything is fetched; a line where it is slow."""
    require_machine(model_params)
    if model_params.precision == "auto" and (device().type, precision(model_params)) == ("cpu", "fp32"):
        lacking = "neither bfloat16 in this processor nor kernels for this base"
        print(f"{lacking}: float32 with transformers, some times slower", file=sys.stderr)


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


def lengths(what: str, count: int, rows: Sequence[Encoded], params: LoopParams) -> str:
    """How much is trained on, and what of it does not fit; `rows` are all stories, those to validate too."""
    number, whole = steps(count, params)
    epochs = "1 epoch" if params.epochs == 1 else f"{params.epochs} epochs"
    of = f" of {whole:,}" if number < whole else ""
    said = f"{count:,} {what}, {epochs}: {number:,}{of} steps of {params.batch_stories}"
    said += f", as {params.section}.max_steps asks" if of else ""
    cut, most = sum(row.shortened for row in rows), params.max_tokens
    return f"{said}; {cut:,} stories are cut at {params.section}.max_tokens = {most:,}" if cut else said


def foretelling(log: Log, steps: int, *, may_end: bool) -> Log:
    """`log`, and after the first steps of this process a line on how long the others will take.

    `may_end`: something may end the training before its last step.
    """
    ends: list[float] = []

    def note(step: int, figures: dict[str, float]) -> None:
        log(step, figures)
        if "learning_rate" not in figures or len(ends) == WATCHED:  # a validation, or told
            return
        ends.append(time.perf_counter())
        if len(ends) == WATCHED and step < steps:
            # The first step is left out: it is slower.
            minutes = (ends[-1] - ends[0]) / (WATCHED - 1) * (steps - step) / 60
            said = f"about {max(1, round(minutes))} min for the steps to come, validations aside"
            tqdm.write(f"at most {said}: it may end earlier" if may_end else said)

    return note


def ready(make: Callable[[], PeftModel], params: LoopParams) -> PeftModel:
    """The model that `make` loads, for training; UserError where memory does not hold it."""
    try:
        model = make()
    except (RuntimeError, MemoryError) as error:
        if out_of_memory(error):
            remedy = "take a smaller base, or on CUDA set model.quantization: nf4"
            raise UserError(f"out of memory while the base is loaded: {remedy}") from None
        raise
    # Autocast gives the adapters, which are float32, their inputs in 16 bits. PEFT would make float32 of them
    # before: the same bits, and a copy for each matrix (33 kB a token and layer of Llama 3.1 8B).
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False
    if params.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False}, params.gradient_checkpointing)
        model.enable_input_require_grads()
    return model


def write_tsv(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """A loss curve: a line a step or validation."""
    columns = list(rows[0]) if rows else ["step", "loss"]
    with published(path) as file:
        file.write(("\t".join(columns) + "\n").encode())
        for row in rows:
            file.write(("\t".join(f"{row[column]:.6g}" for column in columns) + "\n").encode())
