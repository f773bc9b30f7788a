"""How many tokens fit into memory at once, tried before training by a process that may be killed for it."""

import gc
import multiprocessing
import os
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection

import torch
from peft import PeftModel
from tqdm import tqdm

from storyforge.core.errors import UserError
from storyforge.core.launch import end_with_parent
from storyforge.model.device import accelerator
from storyforge.model.encoding import Encoded, micro_batches
from storyforge.model.likelihood import add_gradients
from storyforge.model.loading import ModelParams, attach, base_config, load_base
from storyforge.train.footprint import GIB, available_bytes, predicted_bytes
from storyforge.train.schedule import TrainParams, batches
from storyforge.train.sharding import sharded

SAFE_SHARE = 0.8  # of what is free; a run predicted to need less is not tried
SPARE_SHARE = 0.05  # of what a card has free, for what a long run breaks into pieces
ROUNDS = 2  # the optimiser has its moments after the first
NO_ROOM = 3  # status of a probe in which nothing fits
WORDS = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
DISTRIBUTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

Trial = tuple[int, list[list[Encoded]]]  # a budget, and the micro-batches that it must do for


def fitting(train: Sequence[Encoded], model_params: ModelParams, params: TrainParams) -> int:
    """`micro_batch_tokens`, halved until the heaviest micro-batches of this run can be trained on here.

    Nothing is tried where there is room to spare, nor with sharded weights (FSDP), which one process alone
    cannot try. UserError where a single story is too much.
    """
    longest = max(len(row.ids) for row in train)
    needed, free = (
        predicted_bytes(base_config(model_params), model_params, params, longest),
        available_bytes(),
    )
    if needed <= SAFE_SHARE * free or sharded():
        return params.micro_batch_tokens
    tqdm.write(f"{needed / GIB:.1f} GiB may be needed, {free / GIB:.1f} are free: trying what fits")
    trials = _trials(batches(train, params), params.micro_batch_tokens, longest)
    while trials:
        status, tried = _tried(trials, model_params, params)
        if status == 0 and tried:
            return tried
        if status > 0 and status != NO_ROOM:
            return params.micro_batch_tokens  # what is wrong, training will say
        trials = [trial for trial in trials if status < 0 and tried and trial[0] < tried]
    raise too_large(longest)


def trainable(model_params: ModelParams, params: TrainParams) -> PeftModel:
    """The base with a fresh adapter, ready to be trained."""
    model = attach(load_base(model_params), params.lora, params.seed)
    if params.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    return model


def heaviest(plan: Sequence[Sequence[Encoded]], budget: int) -> list[list[Encoded]]:
    """The micro-batches that need most memory: by their tokens, and by attention's squares."""
    cuts = [cut for rows in plan for cut in micro_batches(rows, budget)]
    most = [max(cuts, key=lambda cut: len(cut) * len(cut[0].ids) ** power) for power in (2, 1)]
    return most[:1] if most[0] is most[1] else most


def out_of_memory(error: BaseException) -> bool:
    """Torch has a class of its own for it on CUDA alone."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def too_large(longest: int) -> UserError:
    return UserError(
        f"out of memory with a single story of {longest} tokens: set train.gradient_checkpointing: true, "
        "lower train.max_tokens, or on CUDA set model.quantization: nf4"
    )


def _trials(plan: Sequence[Sequence[Encoded]], budget: int, longest: int) -> list[Trial]:
    """The wished budget, its half … down to one at which the longest stories go alone."""
    trials = [(budget, heaviest(plan, budget))]
    while trials[-1][0] > longest:
        budget //= 2
        trials.append((budget, heaviest(plan, budget)))
    return trials


def _tried(trials: list[Trial], model_params: ModelParams, params: TrainParams) -> tuple[int, int | None]:
    """The status of a process that tries them in turn, negative when it was killed, and the last it began."""
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    child = context.Process(target=_try, args=(writer, trials, model_params, params), daemon=True)
    child.start()
    writer.close()
    last = None
    with suppress(EOFError), reader:
        while True:
            last = reader.recv()
    child.join()
    return child.exitcode, last


def _try(said: Connection, trials: list[Trial], model_params: ModelParams, params: TrainParams) -> None:
    """In a process of its own: says each budget before it tries it, and ends at the first that fits."""
    _give_way()
    try:
        model = trainable(model_params, params)
        engine = accelerator(model_params)
    except UserError:
        raise SystemExit(1) from None
    except (RuntimeError, MemoryError) as error:
        raise SystemExit(NO_ROOM if out_of_memory(error) else 1) from None
    for budget, cuts in trials:
        said.send(budget)
        try:
            return _step(model, cuts, engine)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise SystemExit(1) from None
        model.zero_grad()
        release()
    raise SystemExit(NO_ROOM)


def _step(model: PeftModel, cuts: Sequence[Sequence[Encoded]], engine) -> None:
    """What a step of training needs, and thrown away."""
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-4)
    model.train()
    for _ in range(ROUNDS):
        for cut in cuts:
            add_gradients(model, cut, 1e-6, engine)
        optimizer.step()


def release() -> None:
    """Give back what a failed step held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _give_way() -> None:
    """Alone, first in line where the kernel must kill one, and content with less than the whole card."""
    end_with_parent()
    for name in DISTRIBUTED:
        os.environ.pop(name, None)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction((1 - SPARE_SHARE) * free / total)
