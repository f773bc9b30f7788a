import re

import pytest
import tiny
from jinja2.sandbox import ImmutableSandboxedEnvironment

from storyforge.export.templates import jinja, modelfile
from storyforge.model.chat import FORMATS, ChatFormat, Piece, control, render

SYSTEM = 'Say "yes" {% x %} {role} {text} \\n é😀'
TALK = [("user", " a {{ b }}\n"), ("assistant", "c"), ("user", "d")]
MODELFILE = f"""FROM ./it.gguf
{tiny.MODELFILE}PARAMETER temperature 0.8
"""


def said(messages, **options):
    """As transformers and llama.cpp set Jinja up."""
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
        options.pop("of")
    )
    return template.render(messages=[{"role": role, "content": text} for role, text in messages], **options)


def ours(chat, messages):
    return "".join(piece.text for piece in render(chat, messages))


@pytest.mark.parametrize("chat", FORMATS.values(), ids=FORMATS)
def test_the_template_says_what_training_saw(chat):
    template = jinja(chat, SYSTEM)
    assert said(TALK, of=template, add_generation_prompt=True) == ours(chat, [("system", SYSTEM), *TALK])
    other = [("system", "Be brief."), *TALK]
    assert said(other, of=template, add_generation_prompt=True) == ours(chat, other)


@pytest.mark.parametrize("chat", FORMATS.values(), ids=FORMATS)
def test_without_a_reply_to_come_a_talk_ends_with_its_last_turn(chat):
    whole, opening = ours(chat, [("system", "S"), *TALK]), ours(chat, []).removeprefix(ours_begin(chat))
    assert said(TALK, of=jinja(chat, "S"), add_generation_prompt=False) == whole.removesuffix(opening)


def test_the_modelfile():
    assert modelfile("it.gguf", FORMATS["smollm2"], "Tell a story.", [("temperature", 0.8)]) == MODELFILE


@pytest.mark.parametrize("chat", FORMATS.values(), ids=FORMATS)
def test_ollama_says_what_training_saw_but_for_the_token_it_begins_with(chat):
    """`range` over the messages is all of Go's template language that is used."""
    text = re.search(r'TEMPLATE """(.*?)"""', modelfile("it.gguf", chat, "S", []), re.S)[1]
    turn, opening = re.fullmatch(r"\{\{ range \.Messages \}\}(.*?)\{\{ end \}\}(.*)", text, re.S).groups()
    messages = [("system", "S"), *TALK]
    turns = [turn.replace("{{ .Role }}", role).replace("{{ .Content }}", said) for role, said in messages]
    assert ours_begin(chat) + "".join(turns) + opening == ours(chat, messages)


def ours_begin(chat):
    return "".join(piece.text for piece in chat.begin)


def test_ollama_puts_the_systems_text_where_the_format_has_no_turn_for_it():
    turns = {
        "user": (control("<u>"), Piece("{text}"), control("</u>")),
        "assistant": (Piece("{text}"), control("<e>")),
    }
    chat = ChatFormat((control("<b>"),), turns, (), "<e>", ("<e>",), "last", "\n\n")
    text = re.search(r'TEMPLATE """(.*?)"""', modelfile("it.gguf", chat, "S", []), re.S)[1]
    assert text == (
        '{{ range $i, $_ := .Messages }}{{ if eq .Role "user" }}<u>'
        "{{ if and $.System (eq (len (slice $.Messages $i)) 1) }}{{ $.System }}\n\n{{ end }}"
        "{{ .Content }}</u>"
        '{{ else if eq .Role "assistant" }}{{ .Content }}<e>{{ end }}{{ end }}'
    )
