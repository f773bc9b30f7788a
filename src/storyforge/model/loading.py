"""The base model, its tokenizer and its LoRA adapter: load, attach, save."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    PeftModelForCausalLM,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import save
from transformers import AutoModelForCausalLM, AutoTokenizer

from storyforge.core.errors import UserError
from storyforge.core.files import published
from storyforge.model import cuda
from storyforge.model.bases import (
    DESCRIPTION,
    LOCAL,
    base_config,
    base_dir,
    described,
    differences,
    quiet,
)
from storyforge.model.chat import FORMATS
from storyforge.model.chat_template import ends, from_template
from storyforge.model.device import DTYPES, device, precision, require_machine
from storyforge.model.encoding import Encoder
from storyforge.model.foreign import lora_config, readable, require_same, tensors
from storyforge.model.heads import head
from storyforge.model.params import LoraParams, ModelParams

STATED = {"peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "bias"}  # what servers look for


def load_encoder(params: ModelParams) -> Encoder:
    """The tokenizer with the model's chat format; no weights are read, nor fetched from a hub."""
    folder = base_dir(params, DESCRIPTION)
    with quiet(), readable(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL)
        chat = FORMATS.get(params.chat) or from_template(tokenizer, ends(folder, tokenizer), params.system)
        encoder = Encoder(tokenizer, chat, params.system)
        # Special tokens that nothing writes may lie beyond the model's: a padding token often does.
        spelled = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
        last = max({*spelled, *encoder.stops, *encoder.prompt("")})
    if last >= (rows := described(params).vocab_size):
        raise UserError(f"{folder}: its tokenizer has a token {last}, and the model knows {rows:,} tokens")
    return encoder


def stored_base(params: ModelParams, **options):
    """The model with the weights of its folder; UserError where one is missing, strange or not finite."""
    folder = base_dir(params)
    base_config(params)
    with quiet(), readable(folder):
        for path in sorted(folder.glob("*.safetensors")):
            for _ in tensors(path):
                pass
        options |= LOCAL | {"use_safetensors": True, "output_loading_info": True}
        model, loaded = AutoModelForCausalLM.from_pretrained(folder, **options)
    require_same(folder, differences(loaded))
    return model


def load_base(params: ModelParams):
    """The frozen base on this machine's device, in evaluation mode.

    UserError where the machine lacks what the params ask for: nothing is replaced in silence.
    """
    require_machine(params)
    here, dtype = device(), DTYPES[precision(params)]
    if params.threads and here.type == "cpu":
        torch.set_num_threads(params.threads)
    attention = params.attention
    if attention == "auto":  # bf16 SDPA on CPU took 36 % of a step at 350 tokens, eager 20 % (docs/LOG.md)
        attention = "eager" if here.type == "cpu" else "sdpa"
    if attention == "sdpa" and here.type == "cuda":
        attention = cuda.attention()
    model = stored_base(
        params,
        dtype=dtype,
        attn_implementation=attention,
        quantization_config=cuda.four_bit(dtype) if params.quantization == "nf4" else None,
        device_map={"": here} if here.type != "cpu" else None,
    )
    # bitsandbytes 0.50 repacks 4-bit weights at the first evaluation on an AVX512-BF16 CPU, after which
    # training has no gradients and says nothing.
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if here.type == "cuda":
        cuda.fuse(model)
    head(model.eval())  # before hours of work with it
    return model.requires_grad_(False)


def attach(model, lora: LoraParams, seed: int) -> PeftModel:
    """A fresh adapter on the base; its weights depend on `seed` alone, whatever was drawn before."""
    torch.manual_seed(seed)
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"train.lora.targets = {lora.targets}: {' '.join(str(error).split())}") from None


def adapter_weights(model: PeftModel) -> dict[str, torch.Tensor]:
    """The adapter alone, on the CPU, in the names an adapter file has."""
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }


def save_adapter(
    directory: Path, model: PeftModel, weights: Mapping[str, torch.Tensor], params: ModelParams
) -> None:
    """An adapter folder whose bytes depend on the weights and the params alone.

    PEFT's own file lists `target_modules` in hash order and names the base by its path on this machine. Keys
    that an older PEFT refuses are left out where they say what is usual.
    """
    given, usual = model.peft_config["default"].to_dict(), LoraConfig().to_dict()
    config = {key: value for key, value in given.items() if key in STATED or value != usual[key]}
    config |= {
        "base_model_name_or_path": params.name,
        "revision": params.origin.revision,
        "inference_mode": True,
    }
    directory.mkdir(parents=True, exist_ok=True)
    with published(directory / "adapter_model.safetensors") as file:
        file.write(save(dict(weights), metadata={"format": "pt"}))
    with published(directory / "adapter_config.json") as file:
        file.write(json.dumps(config, indent=2, sort_keys=True, default=sorted).encode() + b"\n")


def load_adapter(model, adapter: Path, params: ModelParams, name: str = "default") -> PeftModel:
    """The base with a saved adapter on it; `with tuned.disable_adapter()` it is the base again.

    A model that has adapters gets one more, not active. UserError where PEFT would guess or leave out.
    """
    settings, weights = adapter / "adapter_config.json", adapter / "adapter_model.safetensors"
    for file in (settings, weights):
        if not file.is_file():
            raise UserError(f"{file}: there is no such file: run `dvc repro`, or give a whole adapter")
    config = lora_config(settings)
    if config.base_model_name_or_path != params.name:
        raise UserError(
            f"{adapter} was trained on {config.base_model_name_or_path}, but model.name is {params.name}: "
            "run `dvc repro train` or take the params.yaml it was trained with"
        )
    among = [*getattr(model, "peft_config", {}).values(), config]
    if len(among) > 1 and any(one.trainable_token_indices for one in among):
        raise UserError(f"{adapter}: PEFT reads trainable_token_indices only where there is one adapter")
    state = dict(tensors(weights))
    with quiet(), readable(adapter):
        if isinstance(model, PeftModel):
            model.add_adapter(name, config)
        else:
            model = PeftModelForCausalLM(model, config, name)
        own = model.state_dict()
        wanted = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        # PEFT saves a copy of the base's embedding beside an adapter on it.
        for key in own.keys() & state.keys() - wanted.keys():
            if state[key].shape == own[key].shape and torch.equal(state[key].to(own[key]), own[key]):
                del state[key]
        both = wanted.keys() & state.keys()
        differences = {
            "missing": wanted.keys() - both,
            "unexpected": state.keys() - both,
            "of another shape": [key for key in both if wanted[key].shape != state[key].shape],
        }
        require_same(weights, differences)
        set_peft_model_state_dict(model, state, name)
    return model.eval()
