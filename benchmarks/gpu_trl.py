"""TRL tuned, for benchmarks/gpu.py: bf16 or NF4 weights, no recomputation, fused AdamW."""

import sys
import time
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from gpu_cases import PEERS, PROMPT, wait

from storyforge.model.device import device
from storyforge.model.encoding import Encoded
from storyforge.train.params import TrainParams

SIDE_BY_SIDE = 4


def rates(model, batches: Sequence[Sequence[Encoded]], params: TrainParams) -> list[float]:
    """Tokens a second of each step but the first; in a step stories of like length stand side by side."""
    sys.path.insert(0, str(PEERS))
    from datasets import Dataset
    from peft import LoraConfig
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            wait()
            ends.append(time.perf_counter())

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="b", pad_token="b")
    rows = [row for batch in batches for row in sorted(batch, key=lambda row: len(row.ids))]
    data = [
        {"input_ids": list(row.ids), "completion_mask": [0] * PROMPT + [1] * row.reply_tokens} for row in rows
    ]
    lora = params.lora
    peft = LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with TemporaryDirectory() as folder:
        options = SFTConfig(
            output_dir=folder,
            use_cpu=device().type == "cpu",
            max_steps=len(batches),
            per_device_train_batch_size=SIDE_BY_SIDE,
            gradient_accumulation_steps=params.batch_stories // SIDE_BY_SIDE,
            train_sampling_strategy="sequential",
            max_length=params.max_tokens,
            gradient_checkpointing=False,
            bf16=True,
            optim="adamw_torch_fused",
            learning_rate=2e-4,
            logging_steps=1000,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = SFTTrainer(
            model=model,
            args=options,
            train_dataset=Dataset.from_list(data),
            processing_class=tokenizer,
            peft_config=peft,
            callbacks=[Clock()],
        )
        trainer.train()
    tokens = [sum(len(row.ids) for row in batch) for batch in batches]
    seconds = [later - earlier for earlier, later in zip(ends, ends[1:], strict=False)]
    return [count / taken for count, taken in zip(tokens[1:], seconds, strict=True)]
