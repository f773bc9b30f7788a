"""llama.cpp itself reads what was written: its own tokenizer, template, rotary angles and stops."""

import pytest
import tiny
import torch
from tokenizers import Regex, normalizers, pre_tokenizers

from storyforge.export.gguf_file import LLAMA3, QWEN2, TEKKEN
from storyforge.export.gguf_lora import write_lora
from storyforge.export.templates import jinja
from storyforge.model.chat import FORMATS, render
from storyforge.model.encoding import Encoder

pytestmark = pytest.mark.slow
SYSTEM = "Tell a story.\n\n12 lines  1905 words, don't say they'll   rain; naïve 猫 😀 O'NEILL/Ada"
PLAIN = {"rope_type": "default", "rope_theta": 10_000.0}
SCALED = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0}
SCALED |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False)


def cut_by(pattern):
    cut = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


SPLITTERS = {
    "gpt-2": WORDS,
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), WORDS]),
    "llama-bpe": cut_by(LLAMA3),
    "qwen2": cut_by(QWEN2),
    "tekken": cut_by(TEKKEN),
}
CASES = [
    ("llama", "gpt-2", "smollm2", {}),
    ("llama", "smollm", "smollm2", {}),
    ("llama", "llama-bpe", "llama3", {"rope_parameters": SCALED}),
    ("mistral", "tekken", "llama3", {"sliding_window": None, "head_dim": 32}),
    ("qwen2", "qwen2", "smollm2", {}),
    ("qwen3", "qwen2", "smollm2", {"head_dim": 32}),
    ("smollm3", "llama-bpe", "smollm2", {"num_hidden_layers": 4, "tie_word_embeddings": True}),
    ("smollm3", "llama-bpe", "smollm2", {"num_hidden_layers": 5, "head_dim": 32}),
]


@pytest.mark.parametrize(("family", "splitter", "chat", "changes"), CASES)
def test_llamacpp_expects_the_same_next_token(family, splitter, chat, changes, tmp_path):
    """The text is given, so its tokens, the one that begins it and every weight must be right for that."""
    encoder, model = made(family, SPLITTERS[splitter], FORMATS[chat], changes)
    file = tiny.gguf(tmp_path, model, encoder)
    server = served(file)
    expects_the_same(server, encoder, tiny.rounded(tiny.rounded(model, torch.half), torch.float))

    asked = [{"role": "user", "content": "Of rain."}]  # the system's words come from the file's template
    talk = server.handle_chat_completions({"messages": asked, "max_tokens": 1})
    assert talk["usage"]["prompt_tokens"] == len(encoder.prompt("Of rain."))


@pytest.mark.parametrize(
    ("family", "rslora"),
    [("llama", False), ("llama", True), ("qwen2", False), ("qwen3", False), ("smollm3", False)],
)
def test_base_and_adapter_apart_expect_what_the_adapter_does(family, rslora, tmp_path):
    """rsLoRA's scale is not what llama.cpp computes from the file's alpha: B makes up for it."""
    encoder, base = made(family, SPLITTERS["qwen2"], FORMATS["smollm2"], {})
    base = tiny.rounded(tiny.rounded(base, torch.half), torch.float)
    file = tiny.gguf(tmp_path, base, encoder)
    before, tuned = shares(base, encoder), tiny.adapted(base, use_rslora=rslora)
    write_lora(tmp_path / "lora.gguf", tuned)
    assert (shares(tuned, encoder) - before).abs().max() > 1
    expects_the_same(served(file, tmp_path / "lora.gguf"), encoder, tuned)


def served(path, *adapters):
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.warmup, params.use_jinja = 512, 1, False, True
    # Its attention computes in 16 bits otherwise, which costs three times the rounding of the products.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 1.0) for adapter in adapters]
    return xllamacpp.Server(params)


def shares(model, encoder):
    with torch.no_grad():
        return model(torch.tensor([encoder.prompt("Of rain.")])).logits[0, -1].log_softmax(0)


def expects_the_same(server, encoder, model):
    expected = shares(model, encoder)
    pieces = render(encoder.chat, [("system", SYSTEM), ("user", "Of rain.")])
    text = "".join(piece.text for piece in pieces[len(encoder.chat.begin) :])
    # Nothing is said of a reply that is no whole letter, so it is made to be one; the shares are as before.
    asked = {"prompt": text, "max_tokens": 1, "logit_bias": [["S", 100]], "temperature": 0, "logprobs": 5}
    said = server.handle_completions(asked)
    assert said["usage"]["prompt_tokens"] == len(encoder.prompt("Of rain."))
    for token in said["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
        # Its products take 16 bits.
        assert token["logprob"] == pytest.approx(expected[token["id"]].item(), abs=0.02)


def made(family, splitter, chat, changes):
    """A tokenizer that has learned merges from a few words, and a model of them that knows nothing."""
    fast = tiny.tokenizer(
        [chat],
        splitter,
        [SYSTEM, SYSTEM, "system user assistant Of rain."],
        eos_token=chat.end_of_turn,
        bos_token=chat.begin[0].text if chat.begin else None,
    )
    if family.startswith("qwen"):
        fast.backend_tokenizer.normalizer = normalizers.NFC()
    encoder = Encoder(fast, chat, SYSTEM)
    fast.chat_template = jinja(chat, SYSTEM)
    torch.manual_seed(4)
    usual = {
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "initializer_range": 0.3,
        "rope_parameters": PLAIN,
    }
    return encoder, tiny.uneven(tiny.model(family, len(fast) + 3, **usual | changes))
