"""The base model as files: found, fetched or converted, and what they say of it."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    modeling_gguf_pytorch_utils,
)
from transformers.utils import logging

from storyforge.core.assets import content, member_path, snapshot
from storyforge.core.cache import obtained, place
from storyforge.core.errors import UserError
from storyforge.model.foreign import readable, require_no_code, require_same, tensor_count
from storyforge.model.params import ModelParams

DESCRIPTION = ("config.json", "generation_config.json", "tokenizer*.json", "chat_template.jinja")
FILES = ("model*.safetensors", "model.safetensors.index.json", *DESCRIPTION)  # what transformers reads
LOCAL = {"local_files_only": True, "trust_remote_code": False}  # what is missing is never asked of a hub
modeling_gguf_pytorch_utils.tqdm = logging.tqdm  # its own progress bar does not obey `quiet`


def described(params: ModelParams) -> PretrainedConfig:
    """The base's architecture as its configuration has it; no weights are read, nor fetched from a hub."""
    folder = base_dir(params, DESCRIPTION)
    with quiet(), readable(folder):
        return AutoConfig.from_pretrained(folder, **LOCAL).get_text_config()


def base_config(params: ModelParams) -> PretrainedConfig:
    """The same, where the weights for it are stored; none is read."""
    config, folder = described(params), base_dir(params)
    with readable(folder):
        if (layers := config.num_hidden_layers) > (stored := tensor_count(folder)):
            # Said before they are all made.
            raise UserError(
                f"{folder / 'config.json'}: {layers:,} layers, where {stored:,} tensors are stored"
            )
    return config


def base_dir(params: ModelParams, files: Sequence[str] = FILES) -> Path:
    """A folder with the base as safetensors, fetched and converted on first use; of a hub's, these files."""
    if params.origin.kind != "package":
        wanted = files if params.origin.kind == "hub" else FILES  # a folder's sha256 is of all of them
        folder = snapshot(params.origin, wanted, params.sha256).absolute()
        require_no_code(folder)
        return folder
    gguf = member_path(params.origin, params.sha256)
    return obtained(
        place("converted", f"{params.sha256[:16]}-{gguf.stem}"), lambda part: _convert(gguf, part)
    )


def base_digest(params: ModelParams) -> str | None:
    """A sha256 that stands for the bytes of the base."""
    return params.sha256 if params.origin.kind == "package" else content(params.origin, FILES)


def _convert(gguf: Path, folder: Path) -> None:
    """GGUF → float32 safetensors, exactly the file's dequantised values: 20 s once, then half a second."""
    with quiet():
        with readable(gguf):
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            options = {"dtype": torch.float32, "output_loading_info": True}
            loaded, found = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, **options)
            config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
        require_same(gguf, differences(found))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        model.load_state_dict(loaded.state_dict())
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def differences(loaded: Mapping) -> dict[str, set]:
    return {kind: loaded[f"{kind}_keys"] for kind in ("missing", "unexpected", "mismatched")}


@contextmanager
def quiet():
    """transformers' progress bars and advice off: a stage prints what its user needs."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
