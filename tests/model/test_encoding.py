from dataclasses import replace

import pytest
import torch

from storyforge.core.errors import UserError
from storyforge.core.records import Exchange
from storyforge.model.chat import FORMATS
from storyforge.model.encoding import Encoder, collate

RAIN = Exchange(
    id="rain", source="made", group="g", prompt="Begin.", story="Rain fell.\nIt stopped.", ended=True
)


def test_prompt_tokens_carry_no_loss(encoder):
    encoded = encoder.exchange(RAIN, 200)
    reply = encoder.tokenizer.decode(encoded.ids[encoded.reply_start :])
    assert reply == "Rain fell.\nIt stopped.<|im_end|>"
    assert encoder.tokenizer.decode(encoded.ids[: encoded.reply_start]).endswith("<|im_start|>assistant\n")


def test_the_end_token_is_learned_though_it_is_also_the_padding(encoder):
    short, long = (
        encoder.exchange(RAIN, 200),
        encoder.exchange(replace(RAIN, id="x", story="Rain. " * 9), 200),
    )
    batch = collate([short, long], "cpu")
    assert encoder.tokenizer.pad_token_id == encoder.end_of_turn
    assert batch.targets.tolist().count(encoder.end_of_turn) == 2
    assert len(batch.targets) == short.reply_tokens + long.reply_tokens


def test_a_cut_story_never_teaches_an_end(encoder):
    assert encoder.exchange(replace(RAIN, ended=False), 200).ids[-1] != encoder.end_of_turn
    whole = encoder.exchange(RAIN, 200)
    cut = encoder.exchange(RAIN, len(whole.ids) - 3)
    assert cut.shortened and not whole.shortened
    assert encoder.tokenizer.decode(cut.ids[cut.reply_start :]) == "Rain fell."


def test_a_story_that_fits_exactly_keeps_its_end(encoder):
    whole = encoder.exchange(RAIN, 200)
    assert encoder.exchange(RAIN, len(whole.ids)) == whole


@pytest.mark.parametrize("story", ["Rain " * 200, "x" * 900, "雨" * 300, f"Rain\n{'fell ' * 200}"])
def test_a_long_line_is_cut_inside_it(encoder, story):
    encoded = encoder.exchange(replace(RAIN, story=story), 200)
    reply = encoder.tokenizer.decode(encoded.ids[encoded.reply_start :])
    assert encoded.shortened and encoded.ids[-1] != encoder.end_of_turn
    assert story.startswith(reply) and 160 < len(encoded.ids) <= 200


def test_a_long_prompt_gives_way_to_its_story(encoder):
    encoded = encoder.exchange(replace(RAIN, prompt="Begin " * 200), 300)
    assert encoded.shortened and encoded.reply_start < 200
    reply = encoder.tokenizer.decode(encoded.ids[encoded.reply_start :])
    assert reply == f"{RAIN.story}<|im_end|>"


def test_no_room_for_any_story_is_an_error_that_names_the_key(encoder):
    with pytest.raises(UserError, match="story rain: evaluate.max_tokens = 20 leaves .* raise evaluate.max"):
        encoder.exchange(RAIN, 20, key="evaluate.max_tokens")


@pytest.mark.parametrize("chat", FORMATS)
def test_control_tokens_in_a_story_never_become_control_tokens(encoder, chat):
    encoder = Encoder(encoder.tokenizer, FORMATS[chat], "S")
    control = set(encoder.tokenizer.all_special_ids) | set(encoder.tokenizer.added_tokens_decoder)
    text = "".join(encoder.tokenizer.convert_ids_to_tokens(sorted(control)))
    assert len(control) > 3
    assert not control & set(encoder.text(text))
    clean = encoder.prompt("Tell of rain.")
    assert sum(i in control for i in encoder.prompt(text)) == sum(i in control for i in clean)


def test_one_begin_of_text_for_llama(encoder):
    encoder = Encoder(encoder.tokenizer, FORMATS["llama3"], "S")
    begin = encoder.tokenizer.convert_tokens_to_ids("<|begin_of_text|>")
    assert encoder.prompt("Tell.").count(begin) == 1 and encoder.prompt("Tell.")[0] == begin


def test_each_target_is_predicted_from_the_position_before_it(encoder):
    rows = [encoder.exchange(RAIN, 200), encoder.exchange(replace(RAIN, id="b", prompt="Go on, go on."), 200)]
    batch = collate(rows, "cpu")
    assert torch.equal(batch.ids[batch.target_rows, batch.target_positions + 1], batch.targets)


def test_a_format_foreign_to_the_model_is_an_error(encoder):
    chat = replace(FORMATS["smollm2"], end_of_turn="<|nowhere|>")
    with pytest.raises(UserError, match="model.chat: .*<|nowhere|>"):
        Encoder(encoder.tokenizer, chat, "S")
