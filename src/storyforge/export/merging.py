"""The adapter merged into its base, and what two models that should be one make of the same tokens."""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping

from storyforge.core.errors import UserError
from storyforge.core.files import read_json, write_json
from storyforge.export.shards import SHARD, empty, stored, tensor, write
from storyforge.export.templates import jinja
from storyforge.model.bases import base_config, base_dir, quiet
from storyforge.model.cuts import micro_batches
from storyforge.model.device import accelerator
from storyforge.model.encoding import Encoded, Encoder
from storyforge.model.foreign import readable, require_same
from storyforge.model.likelihood import story_nll
from storyforge.model.loading import ModelParams, load_adapter, stored_base
from storyforge.sampling import generate
from storyforge.sampling.generate import SamplingParams

INSIDE = "base_model.model."  # what PEFT puts before a module's name
LORA = re.compile(rf"{re.escape(INSIDE)}(.+)\.lora_[AB]\.weight")
GREEDY = SamplingParams(seed=0, max_new_tokens=40, temperature=0, top_p=1, min_p=0, repetition_penalty=1)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model makes of given stories and prompts."""

    loss: float  # nats a reply token
    greedy: tuple[str, ...]
    logits: Tensor  # (time, vocabulary) of the first story


@dataclass(frozen=True, slots=True)
class Merged:
    """The merged model."""

    model: PreTrainedModel
    made: Callable[[str], Tensor] | None = None  # gives a weight by its name; None: they are in the model


def merged(adapter: Path, params: ModelParams) -> Merged:
    """The base as it is stored, never its 4-bit form, with the adapter in its weights, rounded to 16 bits.

    On the CPU: a GPU that trains a model in 4 bits need not hold it in 16.
    """
    if obstacle(adapter, params):
        return Merged(_at_once(adapter, params))
    model, stored_type = empty_base(params)
    places, file = stored(folder := base_dir(params)), adapter / "adapter_model.safetensors"
    like, rounded = model.state_dict(), model.dtype
    tuned = load_adapter(model, adapter, params)

    def made(name: str) -> Tensor:
        """By PEFT's own arithmetic, see its `Linear.merge`."""
        weight = tensor(places[name], name).to(stored_type)
        require_same(folder, {"of another shape": [name] * (weight.shape != like[name].shape)})
        if scale := scales.get(name):
            module = f"{INSIDE}{name.removesuffix('.weight')}"
            a, b = (tensor(file, f"{module}.lora_{each}.weight").float() for each in "AB")
            weight = weight + (b @ a * scale).to(stored_type)
            if not weight.isfinite().all():
                raise UserError(f"{file}: makes numbers of {name} that are not finite: train it again")
        return weight.to(rounded)

    scales = {
        f"{name.removeprefix(INSIDE)}.weight": layer.scaling["default"]
        for name, layer in tuned.named_modules()
        if isinstance(layer, LoraLayer)
    }
    with quiet():
        return Merged(tuned.unload(), made)


def obstacle(adapter: Path, params: ModelParams) -> str | None:
    """Why the weights cannot be made one by one, but only with all of the model in memory."""
    (model, _), folder = empty_base(params), base_dir(params)
    places, like, tied = stored(folder), model.state_dict(), model.all_tied_weights_keys
    if get_model_conversion_mapping(model, add_legacy=False):
        return f"transformers rearranges the weights of {model.config.model_type}"
    for name in tied.keys() & places.keys():
        twice = [tensor(places[each], each) for each in (name, tied[name]) if each in places]
        if len(twice) < 2 or not torch.equal(*twice):
            return f"the base stores {name}, which is tied, with other numbers"
    if strange := sorted((places.keys() - tied.keys()) ^ (like.keys() - tied.keys())):
        return f"the base's files and transformers do not both have {strange[0]}"
    if buffers := like.keys() - dict(model.named_parameters(remove_duplicate=False)).keys():
        return f"{min(buffers)} is no weight"
    linear = {name for name, module in model.named_modules() if type(module) is torch.nn.Linear}
    for name in stored(adapter, "adapter_model.safetensors"):
        found = LORA.fullmatch(name)
        if not found or found[1] not in linear or f"{found[1]}.weight" in tied:
            return f"the adapter holds {name}"
    return None


def empty_base(params: ModelParams) -> tuple[PreTrainedModel, torch.dtype]:
    """The model without weights (meta), of the type they will have; and the type they are merged in."""
    folder, config = base_dir(params), base_config(params)
    if getattr(config, "quantization_config", None):
        raise UserError(
            f"{folder}: its weights are stored quantised, and an adapter is merged into 16-bit ones: "
            "name the base's 16-bit form in model.origin"
        )
    kind = config.dtype
    if kind is None:  # as transformers' dtype="auto" does
        name, path = min(stored(folder).items(), key=lambda item: (item[1], item[0]))
        kind = tensor(path, name).dtype
    with readable(folder):
        return empty(config).to(_rounded(kind)), kind


def _rounded(stored_type: torch.dtype) -> torch.dtype:
    return stored_type if stored_type.itemsize == 2 else torch.bfloat16


def _at_once(adapter: Path, params: ModelParams) -> PreTrainedModel:
    base = stored_base(params, dtype="auto")
    kind = _rounded(base.dtype)
    tuned = load_adapter(base, adapter, params)
    with quiet(), readable(adapter):  # PEFT's progress bar does not look whether anybody is there
        model = tuned.merge_and_unload(sys.stderr.isatty(), safe_merge=True)
    # Not `model.to`: it would round the rotary angles too.
    for weight in model.parameters():
        weight.data = weight.data.to(kind)
    return model


def save(folder: Path, merged: Merged, encoder: Encoder, sampling: SamplingParams) -> None:
    """A folder that transformers and vLLM load, its format, stops and sampling inside."""
    model, tokenizer, chat = merged.model, encoder.tokenizer, encoder.chat
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
        weights = None if merged.made is None else {}
        model.save_pretrained(folder, state_dict=weights, max_shard_size=SHARD)
        tokenizer.save_pretrained(folder, save_jinja_files=False)
    _make_readable_by_4(folder)
    if merged.made:
        tied = model.all_tied_weights_keys
        like = {name: weight for name, weight in model.state_dict().items() if name not in tied}
        write(folder, like, merged.made)


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
        texts = generate.write(model, encoder, prompts, GREEDY, seeds=[0] * len(prompts))
        ids = torch.tensor([rows[0].ids], device=next(model.parameters()).device)
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0].float().cpu()
    return Reading(nll / sum(row.reply_tokens for row in rows), tuple(text.text for text in texts), logits)
