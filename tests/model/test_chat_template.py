"""A model's own template taken apart, and what comes of it said in the same tokens."""

import json
import shutil
from dataclasses import replace

import pytest
from chats import CHATML, GEMMA, QWEN3, STYLES, tokenizer
from jinja2.sandbox import ImmutableSandboxedEnvironment

from storyforge.core.errors import UserError
from storyforge.core.origins import Origin
from storyforge.export.templates import jinja
from storyforge.model.chat import FORMATS, Piece, control, render
from storyforge.model.chat_template import from_template
from storyforge.model.encoding import Encoder
from storyforge.model.loading import load_encoder

SYSTEM = 'Say "yes" {text}.'
TALK = [("user", "Tell of\n{role} é."), ("assistant", "It rained.\n\nIt stopped."), ("user", "Go on.")]


@pytest.fixture(params=STYLES)
def style(request):
    template, bos, ends = STYLES[request.param]
    made = tokenizer(template, bos)
    return request.param, made, from_template(made, ends, SYSTEM)


def text(pieces):
    return "".join(piece.text for piece in pieces)


def theirs(made, messages):
    messages = [{"role": role, "content": text} for role, text in messages]
    said = made.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    start = said.find("Knowledge until")
    return said if start < 0 else said[:start] + said[said.index("\n\n", start) + 2 :]


@pytest.mark.parametrize("length", [1, 3])
def test_a_talk_is_written_and_tokenised_as_the_template_does(style, length):
    name, made, chat = style
    messages = [("system", SYSTEM), *TALK[:length]]
    given = messages
    if name == "Gemma-2":
        given = [("user", f"{SYSTEM}\n\n{TALK[0][1]}"), *TALK[1:length]]
    assert text(render(chat, messages)) == theirs(made, given)
    *history, (_, asked) = TALK[:length]
    ids = made(theirs(made, given), add_special_tokens=False)["input_ids"]
    assert Encoder(made, chat, SYSTEM).prompt(asked, history) == ids


def test_an_empty_system_text_leaves_no_trace_where_it_has_no_turn(style):
    _, made, chat = style
    if chat.system_in != "own":
        assert text(render(chat, [("system", ""), *TALK])) == theirs(made, TALK)


def test_an_export_says_the_same(style):
    _, _, chat = style
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    for first, system in (([], SYSTEM), ([("system", "Be {role} brief.")], "Be {role} brief.")):
        for talk in (TALK, TALK[:1]):
            messages = [{"role": role, "content": text} for role, text in [*first, *talk]]
            said = env.from_string(jinja(chat, SYSTEM)).render(messages=messages, add_generation_prompt=True)
            assert said == text(render(chat, [("system", system), *talk]))


@pytest.mark.parametrize(("name", "hand"), [("ChatML", "smollm2"), ("Llama-3", "llama3")])
def test_the_formats_written_by_hand_come_out_the_same(name, hand):
    template, bos, ends = STYLES[name]
    assert from_template(tokenizer(template, bos), ends, SYSTEM) == FORMATS[hand]


def test_a_begin_token_that_opens_every_turn_is_no_beginning():
    """SmolLM2's is `<|im_start|>`."""
    template, _, ends = STYLES["ChatML"]
    assert from_template(tokenizer(template, "<|im_start|>"), ends, SYSTEM) == FORMATS["smollm2"]


def test_a_text_begins_once_though_the_tokenizer_adds_a_beginning_itself():
    from tokenizers.processors import TemplateProcessing

    made = tokenizer(GEMMA, "<bos>")
    number = made.convert_tokens_to_ids("<bos>")
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", number)]
    )
    assert made("a")["input_ids"][0] == number
    ids = Encoder(made, from_template(made, ["<end_of_turn>"], SYSTEM), SYSTEM).prompt("Tell.")
    assert ids[0] == number and ids.count(number) == 1


def test_the_system_text_stands_where_the_template_puts_it():
    places = {
        name: from_template(tokenizer(template, bos), ends, SYSTEM).system_in
        for name, (template, bos, ends) in STYLES.items()
    }
    assert {name: place for name, place in places.items() if place != "own"} == {
        "Gemma": "first",
        "Gemma-2": "first",
        "Mistral": "last",
    }


def test_what_is_left_out_is_said():
    said = {
        name: from_template(tokenizer(template, bos), ends, SYSTEM).remarks
        for name, (template, bos, ends) in STYLES.items()
    }
    assert said.pop("Qwen3") == ("model.chat: auto: thinking blocks are switched off",)
    (merged,), (dated,) = said.pop("Gemma-2"), said.pop("Llama-3")
    assert merged == (
        "model.chat: auto: the template takes no system text: it stands before the first prompt"
    )
    assert "left out, since a date changes from day to day: 'Knowledge until 2023" in dated
    assert set(said.values()) == {()}


def test_a_writer_stops_at_its_turns_end_and_at_what_ends_a_generation(style):
    name, _, chat = style
    assert chat.stops[0] == chat.end_of_turn and set(chat.stops) == set(STYLES[name][2])


def test_thinking_is_closed_before_the_reply():
    chat = from_template(tokenizer(QWEN3), ["<|im_end|>"], SYSTEM)
    assert chat.opening == (control("<|im_start|>"), Piece("assistant\n<think>\n\n</think>\n\n"))
    assert "<think>" not in text(chat.turns["assistant"])


BROKEN = {
    "changes texts": (CHATML.replace("m.content", "m.content | upper"), "does not write each message once"),
    "says texts twice": (CHATML.replace("m.content", "m.content + m.content"), "each message once"),
    "numbers its turns": (
        CHATML.replace("m.role + '\n'", "m.role + loop.index | string + '\n'"),
        "a turn is written in more than one way",
    ),
    "always thinks": (CHATML.replace("assistant\n", "assistant\n<think>\n"), "begins with a thinking block"),
    "never ends": (CHATML.replace("<|im_end|>\n", "\n"), "no control token ends a reply"),
    "prints the date": (
        CHATML.replace("m.content", "strftime_now('%Y') + m.content"),
        "it prints a date",
    ),
    "leaves the channel open": (
        CHATML.replace("m.content", "('final: ' if m.role == 'assistant' else '') + m.content"),
        "a reply is not written right after the opening",
    ),
    "looks at the text": (
        CHATML.replace("m.content", "m.content | replace('birds', 'cats')"),
        "a talk of 3 messages is not put together",
    ),
    "is no template": ("{% if %}", "cannot be used: "),
    "takes no talk": ("{{ raise_exception('never') }}", "cannot be used: never"),
    "is missing": (None, "the tokenizer has none"),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_template_that_cannot_be_split_is_refused_with_the_reason(why):
    template, message = BROKEN[why]
    with pytest.raises(UserError, match="^model.chat: auto: .*" + message) as caught:
        from_template(tokenizer(template), ["<|im_end|>"], SYSTEM)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_joins_texts_over_control_tokens_is_refused():
    """Normalised as a whole, a text at the start of a prompt has other tokens than inside it."""
    from tokenizers import pre_tokenizers

    made = tokenizer(CHATML)
    made.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(prepend_scheme="first"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(UserError, match="cuts texts otherwise beside control tokens than alone"):
        from_template(made, ["<|im_end|>"], SYSTEM)


def test_auto_reads_template_and_stops_beside_the_weights(model_params, tiny_model_dir, tmp_path):
    """The stops of the generation's settings, whatever the tokenizer calls its end."""
    folder = tmp_path / "base"
    shutil.copytree(tiny_model_dir, folder)
    origin, auto = Origin.parse(f"folder:{folder}"), {"chat": "auto"}
    params = model_params.model_copy(update=auto | {"origin": origin})
    with pytest.raises(UserError, match="model.chat: auto: .*the tokenizer has none"):
        load_encoder(params)
    (folder / "chat_template.jinja").write_text(CHATML)
    assert load_encoder(params).chat == replace(FORMATS["smollm2"], stops=("<|im_end|>",))
    settings = json.loads((folder / "generation_config.json").read_bytes())
    ends = load_encoder(model_params).tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    (folder / "generation_config.json").write_text(json.dumps(settings | {"eos_token_id": ends}))
    assert load_encoder(params).chat == FORMATS["smollm2"]
