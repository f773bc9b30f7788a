import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

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


def test_a_row_that_stopped_leaves_and_the_others_write_on_as_before(tuned, encoder):
    """Any token that a text holds stops it here, so that the rows stop at different steps."""
    prompts, seeds = ["Tell of birds.", "Tell of the rain that fell on the old town.", "Go."], [1, 2, 3]
    params = sampling(max_new_tokens=40)

    def steps(prompts, seeds, stops):
        return list(next_tokens(tuned, list(map(encoder.prompt, prompts)), seeds, params, stops))

    whole = [[step[row] for step in steps(prompts, seeds, frozenset())] for row in range(3)]
    stops = frozenset({whole[1][5], whole[0][20]})
    found = steps(prompts, seeds, stops)
    for row, tokens in enumerate(whole):
        until = next((n for n, token in enumerate(tokens, 1) if token in stops), len(tokens))
        assert [step[row] for step in found if row in step] == tokens[:until]
    assert len(found[0]) == 3 and len(found[-1]) < 3


@pytest.mark.parametrize("family", ["lfm2", "gemma3_text", "qwen3_next"])
def test_rows_leave_whatever_kind_of_cache_the_model_has(family):
    """Convolutions and linear attention keep states, sliding windows a part of the keys."""
    torch.manual_seed(3)
    small = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 8}
    if family == "qwen3_next":
        small |= {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
        small |= {"shared_expert_intermediate_size": 16, "linear_num_value_heads": 2}
        small |= {"linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **small)).eval()
    params, prompts = sampling(max_new_tokens=12, temperature=2.0), [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    whole = list(next_tokens(model, prompts, [1, 2, 3], params, frozenset()))
    stops = frozenset({whole[3][0]})
    found = list(next_tokens(model, prompts, [1, 2, 3], params, stops))
    for row in range(3):
        tokens = [step[row] for step in whole]
        until = next((n for n, token in enumerate(tokens, 1) if token in stops), len(tokens))
        assert [step[row] for step in found if row in step] == tokens[:until]
    assert 0 < len(found[-1]) < 3


def test_a_batch_that_memory_does_not_hold_is_written_in_halves(tuned, encoder, monkeypatch):
    prompts, seeds = [f"Tell of {what}." for what in ("birds", "rain", "snow", "fog", "sun")], range(5)
    whole = write(tuned, encoder, prompts, sampling(), seeds=seeds)
    sizes, steps = [], generate.next_tokens

    def small(model, rows, *rest):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return steps(model, rows, *rest)

    monkeypatch.setattr(generate, "next_tokens", small)
    assert write(tuned, encoder, prompts, sampling(), seeds=seeds) == whole
    assert sizes == [5, 2, 3, 1, 2]


def test_a_text_that_memory_does_not_hold_alone_is_a_line_and_other_errors_stay(tuned, encoder, monkeypatch):
    def failing(error):
        def steps(*_):
            raise error

        monkeypatch.setattr(generate, "next_tokens", steps)

    failing(MemoryError())
    with pytest.raises(UserError, match="^out of memory with a single text: close other programs"):
        write(tuned, encoder, ["Go.", "Tell."], sampling(), seeds=[1, 2])
    failing(RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        write(tuned, encoder, ["Go.", "Tell."], sampling(), seeds=[1, 2])


def test_rows_whose_likeliest_tokens_hold_too_little_are_drawn_from_all(monkeypatch):
    monkeypatch.setattr(generate, "HEADS", (8, 24))
    generator = torch.Generator().manual_seed(1)
    # Rows that eight tokens hold, and between them one that is nearly even and one that 24 hold.
    logits = torch.randn(4, 64, generator=generator) * torch.tensor([[9.0], [0.1], [9.0], [2.5]])
    draws, none = [0.3, 0.999, 0.7, 0.97], torch.zeros(4, 0, dtype=torch.long)
    params = sampling(top_p=0.95)
    part = choose(logits, none, params, draws)
    monkeypatch.setattr(generate, "HEADS", ())
    assert torch.equal(part, choose(logits, none, params, draws))
    places = [
        row.argsort(descending=True).tolist().index(token)
        for row, token in zip(logits, part.tolist(), strict=True)
    ]
    assert places[0] < 8 < places[3] < 24 < places[1]


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
        next(next_tokens(tuned, [prompt], [1], GREEDY, encoder.stops))
    rows = {math.prod(shape[:-1]) for shape in sizes.shapes if shape and shape[-1] == vocabulary}
    assert rows == {1, width}  # logits, and the head's own weights
    assert max(math.prod(shape) for shape in sizes.shapes if vocabulary not in shape) < len(prompt) ** 2


def test_a_prompt_read_in_parts_gives_the_same_text(tuned, encoder, monkeypatch):
    prompts = ["Tell of the rain that fell on the old town for a year.", "Go."]
    whole = write(tuned, encoder, prompts, sampling(), seeds=[1, 2])
    monkeypatch.setattr(generate, "PREFILL", 7)
    assert write(tuned, encoder, prompts, sampling(), seeds=[1, 2]) == whole


LOGITS = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))


def drawn(params, written=()):
    """The tokens that a fine grid of draws picks, with their shares."""
    grid = [n / 1000 for n in range(1000)]
    reply = torch.tensor([written], dtype=torch.long).expand(1000, -1)
    tokens = choose(LOGITS.expand(1000, -1), reply, params, grid)
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
    shares = drawn(sampling(repetition_penalty=2.0), written=[0, 0])
    assert shares[0] == pytest.approx(0.25 / 0.75, abs=2e-3)  # log 0.5 doubled is log 0.25
    assert drawn(sampling(repetition_penalty=2.0)) == drawn(sampling())
