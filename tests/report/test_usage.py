"""What the model card tells to copy: for the named formats the text that was trained."""

import json
import re

import pytest

from storyforge.model.chat import FORMATS, render
from storyforge.model.loading import adapter_weights, save_adapter
from storyforge.report.usage import ASKED, PROMPTS, usage

SYSTEM = 'Tell "it" in {prompt}.\n\nÉ 猫 ```'


def of(chat, system=SYSTEM, name="someone/base", rank=8):
    return usage({"name": name, "system": system, "chat": chat}, rank)


def trained(chat, system=SYSTEM):
    return "".join(piece.text for piece in render(FORMATS[chat], [("system", system), ("user", ASKED)]))


def block(text, title):
    return re.search(rf"{title}[^\n]*:\n\n(`{{3,}})\n(.*?)\n\1", text, re.S)[2]


@pytest.mark.parametrize("chat", FORMATS)
def test_the_prompt_is_the_text_that_was_trained(chat):
    asked = json.loads(block(of(chat), "vLLM").splitlines()[2])
    assert asked["prompt"] == trained(chat) and asked["add_special_tokens"] is False
    assert json.dumps(trained(chat), ensure_ascii=False) in block(of(chat), "transformers")
    assert PROMPTS[chat][1] == FORMATS[chat].end_of_turn


def test_vllm_is_given_a_rank_that_it_takes():
    assert "--max-lora-rank 8 " in of("auto") and "--max-lora-rank 32 " in of("auto", rank=17)


@pytest.mark.parametrize("chat", FORMATS)
def test_ollama_puts_the_same_together_but_for_the_token_it_begins_with(chat):
    made = block(of(chat), "Ollama")
    template = re.search(r'TEMPLATE """(.*?)"""', made, re.S)[1]
    system = re.search(r'SYSTEM """(.*?)"""', made, re.S)[1]
    begin = "".join(piece.text for piece in FORMATS[chat].begin)
    said = template.replace("{{ .Prompt }}", ASKED).replace("{{ .System }}", system)
    assert begin + said == trained(chat)


def test_what_is_not_known_is_asked_by_messages_with_the_systems_text():
    asked = json.loads(block(of("auto"), "vLLM").splitlines()[2])
    assert asked["messages"] == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": ASKED}]
    assert "were not in the training text" in of("auto") and "TEMPLATE" not in of("auto")


def test_a_systems_text_that_no_modelfile_holds_is_in_none():
    assert "Ollama:" in of("smollm2") and "Ollama:" not in of("smollm2", 'Say """x""".')


@pytest.mark.parametrize("chat", ["smollm2", "auto"])
def test_the_lines_for_transformers_run(chat, tuned, model_params, encoder, tiny_model_dir, tmp_path):
    save_adapter(tmp_path / "a", tuned, adapter_weights(tuned), model_params)
    lines = block(of(chat, encoder.system, str(tiny_model_dir)), "transformers")
    lines = lines.replace("ADAPTER", str(tmp_path / "a")).replace("600", "2")
    if chat == "auto":  # the tiny tokenizer has no template of its own
        lines = lines.replace(
            "messages =", "tokenizer.chat_template = '{{ messages[0].content }}'; messages ="
        )
    names = {}
    exec(lines, names)
    if chat == "smollm2":
        assert names["ids"]["input_ids"].tolist() == [encoder.prompt(ASKED)]
