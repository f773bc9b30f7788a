"""llama.cpp itself reads what was written: its own tokenizer, template, rotary angles and stops."""

import pytest
import tiny
import torch
from tokenizers import Regex, pre_tokenizers

from storyforge.export.gguf_file import LLAMA3, write_gguf
from storyforge.export.templates import jinja
from storyforge.model.chat import FORMATS, render
from storyforge.model.encoding import Encoder

pytestmark = pytest.mark.slow
SYSTEM = "Tell a story.\n\n12 lines  1905 words, don't say they'll   rain; naïve 猫 😀"
PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}
SCALED = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0}
SCALED |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)
SPLITTERS = {
    "gpt-2": WORDS,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), WORDS]),
    "llama-bpe": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


@pytest.mark.parametrize(
    ("splitter", "chat", "rope"),
    [("gpt-2", "smollm2", PLAIN), ("smollm", "smollm2", PLAIN), ("llama-bpe", "llama3", SCALED)],
)
def test_llamacpp_expects_the_same_next_token(splitter, chat, rope, tmp_path):
    """The text is given, so its tokens, the one that begins it and every weight must be right for that."""
    xllamacpp = pytest.importorskip("xllamacpp")
    encoder, model = made(SPLITTERS[splitter], FORMATS[chat], rope)
    write_gguf(tmp_path / "it.gguf", model, encoder, "f16", "it")
    messages = [("system", SYSTEM), ("user", "Of rain.")]
    ids, pieces = encoder.prompt("Of rain."), render(encoder.chat, messages)
    model = tiny.rounded(tiny.rounded(model, torch.half), torch.float)
    shares = model(torch.tensor([ids])).logits[0, -1].log_softmax(0)

    params = xllamacpp.CommonParams()
    params.model.path = str(tmp_path / "it.gguf")
    params.n_ctx, params.n_parallel, params.warmup, params.use_jinja = 512, 1, False, True
    server = xllamacpp.Server(params)
    text = "".join(piece.text for piece in pieces[len(encoder.chat.begin) :])
    said = server.handle_completions({"prompt": text, "max_tokens": 1, "temperature": 0, "logprobs": 5})
    assert said["usage"]["prompt_tokens"] == len(ids)
    for token in said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        assert token["logprob"] == pytest.approx(
            shares[token["id"]].item(), abs=0.03
        )  # it computes in 16 bits

    asked = [{"role": "user", "content": "Of rain."}]  # the system's words come from the file's template
    talk = server.handle_chat_completions({"messages": asked, "max_tokens": 1})
    assert talk["usage"]["prompt_tokens"] == len(ids)


def made(splitter, chat, rope):
    """A tokenizer that has learned merges from a few words, and a model of them that knows nothing."""
    fast = tiny.tokenizer(
        [chat],
        splitter,
        [SYSTEM, SYSTEM, "system user assistant Of rain."],
        eos_token=chat.end_of_turn,
        bos_token=chat.begin[0].text if chat.begin else None,
    )
    encoder = Encoder(fast, chat, SYSTEM)
    fast.chat_template = jinja(chat, SYSTEM)
    torch.manual_seed(4)
    changes = {"tie_word_embeddings": False, "initializer_range": 0.3, "rope_parameters": rope}
    return encoder, tiny.llama(len(fast) + 3, **changes)
