"""Every recipe, and own stories on every base model, from collect to export.

Each has a tiny random model of its family, which a stand-in hub serves under the name and commit that the
recipe asks for, with the real tokenizer where a package holds it. What is shortened is counts alone; the
filters, the chat format, the kind of training and the 4 bits are the recipe's.
"""

import json
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from chats import STYLES, tokenizer
from hub import Hub, parquet, send, serve
from pipeline import ROOT, Repository
from ruamel.yaml import YAML

from storyforge.commands.recipe import laid
from storyforge.core.origins import Origin

RECIPES = sorted(file.stem for file in (ROOT / "recipes").glob("*.yaml"))
BASES = sorted(file.stem for file in (ROOT / "recipes/bases").glob("*.yaml"))
CASES = [(name, None) for name in RECIPES] + [("my-stories", base) for base in BASES]
FAMILIES = {  # by how a model's name begins: its kind in transformers, its tokenizer, what else is to be said
    "HuggingFaceTB/SmolLM2-": ("llama", "smollm2", {"tie_word_embeddings": True}),
    "meta-llama/Llama-3.": ("llama", "llama3", {}),
    "Qwen/Qwen3-": ("qwen3", "Qwen3", {}),
    "HuggingFaceTB/SmolLM3-": ("smollm3", "Qwen3", {"no_rope_layers": [1, 0]}),
    "google/gemma-3-": ("gemma3_text", "Gemma", {"query_pre_attn_scalar": 16, "sliding_window": 512}),
    "mistralai/Mistral-": ("mistral", "Mistral", {"sliding_window": None}),
}
GGUF = {"llama", "mistral", "qwen3"}  # the rest is for llama.cpp's own converter
LLAMA3 = "package:llama-models==0.3.0:llama_models/llama3/tokenizer.model"
LLAMA3_SHA256 = "7f77f78ff13fca09f70d76a376aff6414cd901623fb9d57e69c2f8367a73032f"
LLAMA3_CONTROL = (
    "begin_of_text end_of_text reserved_special_token_0 reserved_special_token_1 finetune_right_pad_id "
    "reserved_special_token_2 start_header_id end_header_id eom_id eot_id python_tag"
).split()
LLAMA3_CONTROL += [f"reserved_special_token_{number}" for number in range(3, 248)]
SHORT = {
    "model.threads": 1,
    "model.precision": "auto",  # fp16 is for GPUs, and a CPU may have to emulate bf16
    "train.max_steps": 2,
    "train.batch_stories": 3,
    "train.validation_stories": 2,
    "train.lora": {"r": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"},
    "preprocess.split.val": 0.15,
    "preprocess.split.test": 0.15,
    "sampling.max_new_tokens": 8,
    "evaluate.stories": 3,
    "evaluate.samples_per_prompt": 1,
    "evaluate.prompts": {"kinds": ["mystery"], "held_out": 1},
    "evaluate.prompt_use": {"stories": 1, "distractors": 1, "reply_tokens": 8},
    "revise.prompts": 0,  # a random model cannot criticise; tests/graph/test_second_phase.py has that phase
    "tracking.wandb": False,
}
RUN = """
import importlib, sys
from pathlib import Path
from storyforge.core import before_torch
import yaml
if __name__ == "__main__":
    for name, stage in yaml.safe_load(Path("dvc.yaml").read_text())["stages"].items():
        module, *paths, _ = stage["cmd"].partition("python -m ")[2].split()
        print("stage", name, flush=True)
        importlib.import_module(module).main(*map(Path, paths))
    from storyforge.cli import app
    app(["export", "--type", sys.argv[1]])
"""


@cache
def llama3():
    """Llama 3's own: bytes by rank, the control tokens after them."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    from storyforge.core.assets import member_path
    from storyforge.export.gguf_file import SPLITTERS

    lines = member_path(Origin.parse(LLAMA3), LLAMA3_SHA256).read_text().splitlines()
    ranks = {b64decode(token): int(rank) for token, rank in map(str.split, lines)}
    letters = bytes_to_unicode()
    spelled = {token: "".join(map(letters.get, token)) for token in ranks}

    def halves(token):
        cut = ((token[:at], token[at:]) for at in range(1, len(token)))
        known = (pair for pair in cut if pair[0] in ranks and pair[1] in ranks)
        return sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))

    merges = [(spelled[one], spelled[other]) for token in ranks for one, other in halves(token)]
    vocabulary = {spelled[token]: rank for token, rank in ranks.items()}
    made = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    words = pre_tokenizers.Split(Regex(SPLITTERS["llama-bpe"][0]["pattern"]["Regex"]), "isolated")
    bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([words, bytewise])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([f"<|{name}|>" for name in LLAMA3_CONTROL])
    named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **named)


@cache
def smollm2():
    """SmolLM2's own, out of the default model's package."""
    from transformers import AutoTokenizer

    from storyforge.model.bases import base_dir
    from storyforge.model.loading import ModelParams

    return AutoTokenizer.from_pretrained(base_dir(ModelParams.load(ROOT / "params.yaml")))


def tokens_of(style):
    """A tokenizer, and the tokens that end a reply."""
    if style in ("llama3", "smollm2"):
        ends = {"llama3": ["<|eot_id|>", "<|end_of_text|>"], "smollm2": ["<|im_end|>", "<|endoftext|>"]}
        return {"llama3": llama3, "smollm2": smollm2}[style](), ends[style]
    template, begin, ends = STYLES[style]
    return tokenizer(template, begin, ends[0]), ends


def model_files(name: str, folder: Path) -> tuple[str, dict[str, bytes]]:
    """The family, and the files of a tiny model of it as a hub has them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    family, style, more = next(what for start, what in FAMILIES.items() if name.startswith(start))
    fast, ends = tokens_of(style)
    fast.save_pretrained(folder)
    stops = fast.convert_tokens_to_ids(ends)
    size = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    size |= {
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 8192,
        "vocab_size": len(fast),
    }
    size |= {"bos_token_id": fast.bos_token_id, "eos_token_id": stops[0], "pad_token_id": stops[-1]}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **size | more)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=fast.bos_token_id, eos_token_id=stops)
    model.save_pretrained(folder)
    return family, {file.name: file.read_bytes() for file in folder.iterdir()}


@cache
def passages() -> list[str]:
    """Of the stories in examples, some paragraphs each: English that the filters keep."""
    found = []
    for file in sorted((ROOT / "examples/my-stories").glob("*.[tm][xd]*")):
        held = []
        for paragraph in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")):
            held.append(" ".join(paragraph.split()))
            if sum(len(each.split()) for each in held) >= 110 and held[-1][-1] in ".!?":
                found.append("\n".join(held))
                held = []
    return [text for text in found if "#" not in text]


def tables() -> list[tuple[str, bytes]]:
    """What the recipes' two corpora are asked for, in their forms."""
    texts = passages()
    prompts = [f"[ WP ] {text.split('.')[0]} , and then ?" for text in texts]
    stories = [text.replace("\n", " <newline> <newline> ") for text in texts]
    half = len(texts) * 2 // 3
    one = parquet(prompt=prompts[:half], story=stories[:half])
    return [("writingprompts", one), ("tinystories", parquet(text=texts[half:]))]


@contextmanager
def serving(hubs: list[Hub]):
    """Several repositories at one address."""

    def answer(request):
        asked = next((hub for hub in hubs if f"/{hub.name}/" in request.path), None)
        asked._answer(request) if asked else send(request, b"", status=404)

    with serve(answer) as url:
        yield url


def shortened(text: str, work: Path, environment) -> dict:
    """params.yaml in the folder; returns its sections as the recipe had them."""
    (work / "params.yaml").write_text(text)
    params = YAML(typ="safe").load(text)
    Repository(work, environment).choose(SHORT)
    return params


def prepared(work: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", work)
    (work / "data").mkdir()
    for name in ("prompts.yaml", "general.jsonl", "constitution.yaml"):
        shutil.copy(ROOT / "data" / name, work / "data")
    (work / "run.py").write_text(RUN)


def test_every_recipe_and_base_is_of_a_known_family():
    files = [ROOT / "params.yaml", *(ROOT / "recipes").rglob("*.yaml")]
    names = [YAML(typ="safe").load(file).get("model", {}).get("name") for file in files]
    assert all(name.startswith(tuple(FAMILIES)) for name in filter(None, names))


@pytest.mark.slow
def test_llamas_tokenizer_is_the_real_one():
    fast = llama3()
    assert len(fast) == 128_256 and fast.convert_tokens_to_ids("<|eot_id|>") == 128_009
    assert fast("Hello world", add_special_tokens=False)["input_ids"] == [9906, 1917]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("recipe", "base"), CASES, ids=lambda name: name or "own base")
def test_it_goes_from_collect_to_export(recipe, base, environment, tmp_path):
    work, file = tmp_path / "work", ROOT / f"recipes/{recipe}.yaml"
    work.mkdir()
    prepared(work)
    text = laid(file, ROOT / f"recipes/bases/{base}.yaml") if base else file.read_text(encoding="utf-8")
    params = shortened(text, work, environment)
    family, files = model_files(params["model"]["name"], tmp_path / "model")
    origin = Origin.parse(params["model"]["origin"])
    hubs = []
    if origin.kind == "hub":
        hubs.append(Hub(files, origin.name, origin.revision))
    else:  # a package with the real weights
        choices = {"model.origin": f"folder:{tmp_path / 'model'}", "model.sha256": None}
        Repository(work, environment).choose(choices)
    for source, table in tables():
        if source in params["collect"]:
            of = Origin.parse(params["collect"][source]["origin"])
            hubs.append(Hub({"data/train-0.parquet": table}, of.name, of.revision))
    shutil.copytree(ROOT / "examples/my-stories", work / "data/my-stories")
    env = environment | {"PYTHONPATH": str(ROOT / "src"), "STORYFORGE_ALLOW_CPU": "1", "OMP_NUM_THREADS": "1"}
    env |= {"STORYFORGE_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    with serving(hubs) as url:
        kind = "f16" if family in GGUF and base is None else "none"
        command = [sys.executable, "run.py", kind]
        done = subprocess.run(
            command, cwd=work, env=env | {"HF_ENDPOINT": url}, capture_output=True, text=True, timeout=1700
        )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    whole = json.loads((work / "metrics/train.json").read_text())
    assert whole["steps"] == 2
    details = json.loads((work / "data/evaluated/details.json").read_text())
    assert ("base_16bit" in details) == (params["model"]["quantization"] == "nf4")
    exported = json.loads((work / "exports/tuned/export.json").read_text())
    assert exported["forms"][0]["loss"] == pytest.approx(exported["adapter_loss"], abs=0.02)
    assert len(exported["forms"]) == (2 if kind == "f16" else 1)
