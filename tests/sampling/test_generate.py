import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from storyforge.core.errors import UserError
from storyforge.sampling import generate
from storyforge.sampling.generate import SamplingParams, choose, next_tokens, write

GREEDY = SamplingParams(
    seed=1, max_new_tokens=12, temperature=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0
)


def sampling(**changes):
    return GREEDY.model_copy(update={"temperature": 1.0, **changes})


def test_greedy_text_is_what_transformers_generates(tuned, encoder):
    ids = torch.tensor([encoder.prompt("Tell of birds.")])
    theirs = tuned.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=None,
    )
    ours = write(tuned, encoder, ["Tell of birds."], GREEDY, seeds=[1])[0]
    assert ours.tokens == 12
    assert ours.text == encoder.decode(theirs[0, ids.shape[1] :].tolist()).strip()


def test_neighbours_and_padding_do_not_change_a_text(tuned, encoder):
    prompts = ["Tell of birds.", "Tell of the rain that fell on the old town for a year.", "Go."]
    together = write(tuned, encoder, prompts, sampling(), seeds=[1, 2, 3])
    alone = [write(tuned, encoder, [p], sampling(), seeds=[n])[0] for n, p in enumerate(prompts, 1)]
    assert together == alone


def test_same_seed_same_text_other_seed_other_text(tuned, encoder):
    texts = [write(tuned, encoder, ["Tell."], sampling(), seeds=[seed])[0].text for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


def test_the_global_generator_has_no_say(tuned, encoder):
    torch.manual_seed(1)
    first = write(tuned, encoder, ["Tell."], sampling(), seeds=[5])
    torch.manual_seed(2)
    assert write(tuned, encoder, ["Tell."], sampling(), seeds=[5]) == first


def test_a_writer_that_stops_is_said_to_have_ended(tuned, encoder):
    """The end token's own row of the tied head is made to win at once."""
    with torch.no_grad():
        hidden = (
            tuned.get_base_model().model(torch.tensor([encoder.prompt("Tell.")])).last_hidden_state[0, -1]
        )
        tuned.get_output_embeddings().weight[encoder.end_of_turn] = 10 * hidden
    written = write(tuned, encoder, ["Tell."], GREEDY, seeds=[1])[0]
    assert (written.text, written.tokens, written.ended) == ("", 1, True)


def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers(tuned, encoder):
    room = 512 - GREEDY.max_new_tokens - len(encoder.prompt(""))  # the tiny tokenizer's tokens are bytes
    assert write(tuned, encoder, ["a" * room], GREEDY, seeds=[1])[0].tokens == 12
    with pytest.raises(
        UserError, match="^a prompt of 501 tokens and a reply of 12 are more than the 512 tokens"
    ):
        write(tuned, encoder, ["a" * (room + 1)], GREEDY, seeds=[1])


class Sizes(TorchDispatchMode):
    """Notes the shape of every tensor that is made."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.shapes |= {tuple(each.shape) for each in tree_leaves(made) if isinstance(each, torch.Tensor)}
        return made


def test_prefilling_makes_no_logits_but_the_last_positions_and_no_square_of_the_prompt(
    tuned, encoder, monkeypatch
):
    monkeypatch.setattr(generate, "PREFILL", 50)
    prompt, vocabulary, width = encoder.prompt("a" * 300), len(encoder.tokenizer), 64
    with Sizes() as sizes:
        next(next_tokens(tuned, [prompt], GREEDY, encoder.stops, [1]))
    rows = {math.prod(shape[:-1]) for shape in sizes.shapes if shape and shape[-1] == vocabulary}
    assert rows == {1, width}  # logits, and the head's own weights
    assert max(math.prod(shape) for shape in sizes.shapes if vocabulary not in shape) < len(prompt) ** 2


def test_a_prompt_read_in_parts_gives_the_same_text(tuned, encoder, monkeypatch):
    prompts = ["Tell of the rain that fell on the old town for a year.", "Go."]
    whole = write(tuned, encoder, prompts, sampling(), seeds=[1, 2])
    monkeypatch.setattr(generate, "PREFILL", 7)
    assert write(tuned, encoder, prompts, sampling(), seeds=[1, 2]) == whole


LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
UNSEEN = torch.zeros(1, 4, dtype=torch.bool)


def drawn(params, seen=UNSEEN):
    """The tokens that a fine grid of draws picks, with their shares."""
    grid = [n / 1000 for n in range(1000)]
    tokens = choose(LOGITS.expand(1000, -1), seen.expand(1000, -1), params, grid)
    return (torch.bincount(tokens, minlength=4) / 1000).tolist()


def test_draws_follow_the_probabilities():
    assert drawn(sampling()) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=2e-3)


def test_top_p_keeps_the_smallest_set_with_that_mass():
    assert drawn(sampling(top_p=0.7)) == pytest.approx([0.625, 0.375, 0, 0], abs=2e-3)


def test_min_p_drops_what_is_unlikely_beside_the_likeliest():
    assert drawn(sampling(min_p=0.2)) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], abs=2e-3)


def test_temperature_sharpens():
    assert drawn(sampling(temperature=0.5))[0] == pytest.approx(
        0.25 / (0.25 + 0.09 + 0.0225 + 0.0025), abs=2e-3
    )


def test_the_penalty_lowers_only_what_was_written():
    seen = torch.tensor([[True, False, False, False]])
    shares = drawn(sampling(repetition_penalty=2.0), seen)
    assert shares[0] == pytest.approx(0.25 / 0.75, abs=2e-3)  # log 0.5 doubled is log 0.25
    assert drawn(sampling(repetition_penalty=2.0)) == drawn(sampling())
