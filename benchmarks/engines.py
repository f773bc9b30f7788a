"""One engine in a process of its own, as `train.py` starts it: a step when it is told to, then an answer.

A peer is called as its documentation says, through its public functions alone.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any


class Turns:
    """The benchmark's end of the line: a step is timed from its word to the answer, waiting is not.

    What libraries print goes to stderr, so that only answers stand on stdout.
    """

    def __init__(self, started: float):
        self.begin = started
        self.answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def answer(self, **figures: Any) -> None:
        seconds = time.time() - self.begin
        print(
            json.dumps({"seconds": seconds, "peak_mib": _peak_mib(), **figures}),
            file=self.answers,
            flush=True,
        )

    def step_done(self, *_: Any) -> None:
        self.answer()
        if not sys.stdin.readline():
            raise SystemExit("the benchmark is gone")
        self.begin = time.time()


def storyforge(job: dict[str, Any], turns: Turns, adapter: Path) -> list[float]:
    from storyforge.core.records import Exchange
    from storyforge.model.encoding import singly
    from storyforge.model.loading import ModelParams, load_encoder, save_adapter
    from storyforge.train.loop import train
    from storyforge.train.params import TrainParams
    from storyforge.train.schedule import batches
    from storyforge.train.stage import fresh_model

    model_params = ModelParams.load().model_copy(update={"threads": job["threads"]})
    params = TrainParams.model_validate({**TrainParams.load().model_dump(), **job["train"]})
    stories = [Exchange(**row) for row in job["exchanges"]]
    work = adapter.with_name("work")
    work.mkdir()
    encoder = load_encoder(model_params)
    rows = [encoder.exchange(story, params.max_tokens) for story in stories]
    model, plan = fresh_model(model_params, params), [singly(step) for step in batches(rows, params)]
    run = train(model, plan, [], model_params, params, work=work, log=turns.step_done)
    save_adapter(adapter, run.model, run.best, model_params)
    return [row["loss"] for row in run.state.train]


def trl_defaults(job: dict[str, Any], turns: Turns, adapter: Path) -> list[float]:
    """What `SFTTrainer` does unasked: float32 weights under bf16 autocast, gradient checkpointing."""
    return _sft(job, turns, adapter, peft_config=_lora_config(job))


def trl_tuned(job: dict[str, Any], turns: Turns, adapter: Path) -> list[float]:
    """Weights as this processor multiplies them fastest, no checkpointing."""
    dtype = job["dtype"]
    tuned = {
        "bf16": dtype == "bfloat16",
        "gradient_checkpointing": False,
        "model_init_kwargs": {"dtype": dtype},
    }
    return _sft(job, turns, adapter, tuned, peft_config=_lora_config(job))


def unsloth(job: dict[str, Any], turns: Turns, adapter: Path) -> list[float]:
    """Its CPU backend as it loads by default: bf16 weights where the processor computes in bf16."""
    from unsloth import FastLanguageModel  # before transformers, which it patches

    lora = job["train"]["lora"]
    model, _ = FastLanguageModel.from_pretrained(
        job["base"], max_seq_length=1024, load_in_4bit=False, dtype=None
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        use_gradient_checkpointing=False,
    )
    return _sft(job, turns, adapter, {"gradient_checkpointing": False}, model=model)


def unsloth_compiled(job: dict[str, Any], turns: Turns, adapter: Path) -> list[float]:
    """With its switch to compile each layer, which pays in longer runs."""
    os.environ["UNSLOTH_CPU_COMPILE"] = "1"
    return unsloth(job, turns, adapter)


ENGINES = {
    engine.__name__: engine for engine in (storyforge, trl_defaults, trl_tuned, unsloth, unsloth_compiled)
}
ROWS = 2  # stories at once in a peer: with transformers' default of 8, TRL took 1.2 times as long here


def _lora_config(job: dict[str, Any]) -> Any:
    from peft import LoraConfig

    lora = job["train"]["lora"]
    return LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=lora["targets"],
        task_type="CAUSAL_LM",
    )


def _sft(
    job: dict[str, Any],
    turns: Turns,
    adapter: Path,
    options: dict[str, Any] | None = None,
    **model: Any,
) -> list[float]:
    """TRL's trainer on the steps of the job, in their order; their losses."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class StepEnds(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            turns.step_done()

    config = SFTConfig(
        output_dir=str(adapter.with_name("trainer")),
        use_cpu=True,
        max_steps=len(job["steps"]),
        per_device_train_batch_size=ROWS,
        gradient_accumulation_steps=len(job["steps"][0]) // ROWS,
        train_sampling_strategy="sequential",  # the steps' own stories
        learning_rate=job["train"]["learning_rate"],
        lr_scheduler_type="constant",
        seed=job["train"]["seed"],
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **(options or {}),
    )
    trainer = SFTTrainer(
        args=config,
        train_dataset=Dataset.from_list([row for step in job["steps"] for row in step]),
        processing_class=AutoTokenizer.from_pretrained(job["base"]),
        callbacks=[StepEnds()],
        **{"model": job["base"], **model},
    )
    trainer.train()
    trainer.save_model(str(adapter))
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def _peak_mib() -> int:
    """`ru_maxrss` would not do: a process starts with its parent's."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def main(name: str, job: Path, adapter: Path, started: str) -> None:
    turns = Turns(float(started))
    losses = ENGINES[name](json.loads(job.read_text("utf-8")), turns, adapter)
    turns.answer(losses=losses)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
