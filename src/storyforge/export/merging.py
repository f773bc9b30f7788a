"""The adapter merged into its base, and what two models that should be one make of the same tokens."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, GenerationConfig

from storyforge.core.files import read_json, write_json
from storyforge.export.templates import jinja
from storyforge.model.bases import base_config, quiet
from storyforge.model.cuts import micro_batches
from storyforge.model.device import accelerator
from storyforge.model.encoding import Encoded, Encoder
from storyforge.model.foreign import readable
from storyforge.model.likelihood import story_nll
from storyforge.model.loading import ModelParams, load_adapter, stored_base
from storyforge.sampling.generate import SamplingParams, write

GREEDY = SamplingParams(seed=0, max_new_tokens=40, temperature=0, top_p=1, min_p=0, repetition_penalty=1)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model makes of given stories and prompts."""

    loss: float  # nats a reply token
    greedy: tuple[str, ...]
    logits: Tensor  # (time, vocabulary) of the first story


def merged(adapter: Path, params: ModelParams):
    """The base as it is stored, never its 4-bit form, with the adapter in its weights, rounded to 16 bits.

    On the CPU: a GPU that trains a model in 4 bits need not hold it in 16.
    """
    base = stored_base(params, dtype="auto")
    stored = base.dtype
    tuned = load_adapter(base, adapter, params)
    with quiet(), readable(adapter):  # PEFT's progress bar does not look whether anybody is there
        model = tuned.merge_and_unload(sys.stderr.isatty(), safe_merge=True)
    # Not `model.to`: it would round the rotary angles too, and the GGUF file holds what they are then.
    for weight in model.parameters():
        weight.data = weight.data.to(stored if stored.itemsize == 2 else torch.bfloat16)
    return model


def parameters(params: ModelParams) -> int:
    """How many weights the merged model has; none is read."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(base_config(params))
    return sum(weight.numel() for weight in model.parameters())


def save(folder: Path, model, encoder: Encoder, sampling: SamplingParams) -> None:
    """A folder that transformers and vLLM load, its format, stops and sampling inside."""
    tokenizer, chat = encoder.tokenizer, encoder.chat
    tokenizer.chat_template, tokenizer.eos_token = jinja(chat, encoder.system), chat.end_of_turn
    stops = sorted(encoder.stops, key=lambda stop: (stop != encoder.end_of_turn, stop))
    padding = tokenizer.pad_token_id
    model.config.eos_token_id = stops
    model.config.pad_token_id = encoder.end_of_turn if padding is None else padding
    chosen = {"max_new_tokens": sampling.max_new_tokens, "repetition_penalty": sampling.repetition_penalty}
    if sampling.temperature > 0:  # top_k: transformers' 50 likeliest tokens are not ours
        filters = {"top_k": 0, "top_p": sampling.top_p, "min_p": sampling.min_p}
        chosen |= {"temperature": sampling.temperature, **filters}
    model.generation_config = GenerationConfig(
        eos_token_id=stops,
        pad_token_id=model.config.pad_token_id,
        bos_token_id=tokenizer.bos_token_id if chat.begin else None,
        do_sample=sampling.temperature > 0,
        **chosen,
    )
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder, save_jinja_files=False)
    _make_readable_by_4(folder)


def _make_readable_by_4(folder: Path) -> None:
    """The names of transformers 4, on which most servers build, beside those of 5, which reads both.

    4 takes a configuration without `rope_theta` for one that turns by 10,000, and says nothing.
    """
    path = folder / "config.json"
    config = read_json(path)
    turned = config["rope_parameters"]
    if "full_attention" in turned:  # Gemma 3: layers with a window turn by angles of their own
        config["rope_local_base_freq"] = turned["sliding_attention"]["rope_theta"]
        turned = turned["full_attention"]
    scaling = dict(turned)
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
    write_json(path, config | {"torch_dtype": config["dtype"]})
    path = folder / "tokenizer_config.json"
    tokenizer = read_json(path)
    for of_5 in ("backend", "is_local", "local_files_only"):
        tokenizer.pop(of_5, None)
    if extra := tokenizer.pop("extra_special_tokens", None):  # a list in 5, a mapping in 4
        tokenizer["additional_special_tokens"] = extra
    write_json(path, tokenizer | {"tokenizer_class": "PreTrainedTokenizerFast"})


def read(
    model,
    encoder: Encoder,
    rows: Sequence[Encoded],
    prompts: Sequence[str],
    *,
    params: ModelParams,
    batch_tokens: int,
    name: str,
) -> Reading:
    """Mean loss on the stories' replies, the likeliest answers to the prompts, the first story's logits."""
    nll = 0.0
    with accelerator(params).autocast():
        batches = micro_batches(model, rows, batch_tokens)
        for cut in tqdm(batches, desc=name, unit="batch", disable=None, leave=False):
            nll += sum(story_nll(model, cut))
        texts = write(model, encoder, prompts, GREEDY, seeds=[0] * len(prompts))
        ids = torch.tensor([rows[0].ids], device=next(model.parameters()).device)
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0].float().cpu()
    return Reading(nll / sum(row.reply_tokens for row in rows), tuple(text.text for text in texts), logits)
