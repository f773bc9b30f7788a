"""How to ask the adapter as it was trained: the prompt itself, ready to copy for other programs."""

import json
from collections.abc import Mapping
from typing import Any

from storyforge.report.page import fenced

# What the named formats of `model.chat` make of a system's text and a prompt, and what ends a reply; a test
# compares them with storyforge/model/chat.py.
PROMPTS = {
    "smollm2": (
        "<|im_start|>system\n{system}<|im_end|>\n"
        "<|im_start|>user\n{prompt}<|im_end|>\n"
        "<|im_start|>assistant\n",
        "<|im_end|>",
    ),
    "llama3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{system}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n{prompt}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
}
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vLLM takes these alone, vllm/config/lora.py
BEGIN = "<|begin_of_text|>"  # Ollama puts it there by itself
ASKED = "A lighthouse keeper hears a knock from the sea."
TRANSFORMERS = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({base})
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base}), "ADAPTER")
{ids}
written = model.generate(**ids, max_new_tokens=600, do_sample=True{end})
print(tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))
"""
TEXT = """\
prompt = {}
ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")"""
TALK = """\
messages = {}
options = {{"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}}
ids = tokenizer.apply_chat_template(messages, **options)"""
VLLM = """\
vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules storyteller=ADAPTER
curl localhost:8000/v1/{where} -H 'Content-Type: application/json' --data-binary @- <<'END'
{asked}
END
"""
OLLAMA = """\
FROM BASE.gguf
ADAPTER ./tuned-lora.gguf
{template}SYSTEM \"""{system}\"""
"""
KNOWN = "It was trained on this text, with no date in it. `{prompt}` is what is asked:"
UNKNOWN = """\
The format was taken from the base's own chat template; the system's text goes first. Words that the template
adds by itself (a date, a thinking block) were not in the training text. The template that `storyforge export`
writes has none of them."""


def usage(model: Mapping[str, Any], rank: int) -> str:
    """Markdown, from the model's section of params.yaml and the adapter's rank; `ADAPTER` is its place."""
    system, known = model["system"], PROMPTS.get(model["chat"])
    room = next((size for size in RANKS if size >= rank), rank)
    asked: dict[str, Any] = {"model": "storyteller", "max_tokens": 600}
    if known:
        template, stop = known[0], _json(known[1])
        end = f", eos_token_id=tokenizer.convert_tokens_to_ids({stop})"
        where, prompt = "completions", template.format(system=system, prompt=ASKED)
        asked |= {"prompt": prompt, "add_special_tokens": False}
        shown = template.format(system=system, prompt="{prompt}")
        ids, said = TEXT.format(_json(prompt)), f"{KNOWN}\n\n{fenced(shown)}"
        turns = template.removeprefix(BEGIN).format(system="{{ .System }}", prompt="{{ .Prompt }}")
        shape = f'TEMPLATE """{turns}"""\nPARAMETER stop {stop}\n'
    else:
        talk = [{"role": "system", "content": system}, {"role": "user", "content": ASKED}]
        where, asked["messages"] = "chat/completions", talk
        ids, said, shape, end = TALK.format(_json(talk)), UNKNOWN, "", ""
    written = {
        "transformers, with PEFT": TRANSFORMERS.format(base=_json(model["name"]), ids=ids, end=end),
        "vLLM": VLLM.format(base=model["name"], rank=room, where=where, asked=_json(asked)),
    }
    if '"""' not in system:  # a Modelfile cannot hold it
        made = OLLAMA.format(template=shape, system=system)
        written["Ollama: a Modelfile beside what `storyforge export --type lora` writes"] = made
    return "\n\n".join((said, *(f"{name}:\n\n{fenced(text)}" for name, text in written.items())))


def _json(value: Any) -> str:
    """On one line, as Python reads it too: there is no null, true or false in text."""
    return json.dumps(value, ensure_ascii=False)
