"""A tokenizer and a model that are made in a moment, and what an export writes for the first chat format."""

from collections.abc import Iterable

MODELFILE = '''TEMPLATE """{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""
SYSTEM """Tell a story."""
PARAMETER stop "<|im_end|>"
PARAMETER stop "<|endoftext|>"
'''


LOOP = {  # what params.yaml says of a small run, in training and in aligning
    "seed": 3,
    "epochs": 2,
    "max_steps": None,
    "batch_stories": 3,
    "max_tokens": 200,
    "warmup_share": 0.1,
    "weight_decay": 0.0,
    "max_gradient_norm": 1.0,
    "gradient_checkpointing": False,
    "validate_every": 2,
    "validation_stories": None,
    "patience": None,
}


def tokenizer(chats: Iterable, splitter=None, learned: Iterable[str] = (), **special: str | None):
    """Every byte is a token, then a few learned merges, then the control tokens of the chat formats."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    chats = list(chats)
    control = {token for chat in chats for token in chat.control_tokens}
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = splitter or pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=len(letters) + 64, initial_alphabet=letters, show_progress=False)
    made.train_from_iterator(learned, trainer)
    made.add_special_tokens(sorted(control))
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


def llama(vocab_size: int, **changes):
    return model("llama", vocab_size, **changes)


def model(family: str, vocab_size: int, **changes):
    """Of any family; its norms are all 1, its biases 0."""
    from transformers import AutoConfig, AutoModelForCausalLM

    usual = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    config = AutoConfig.for_model(family, vocab_size=vocab_size, **usual | changes)
    return AutoModelForCausalLM.from_config(config).eval()


def rounded(model, dtype):
    """Its weights in another precision; `model.to` would round its rotary angles too."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)
    return model


def uneven(model):
    """Its norms and biases drawn at random too, so that one left out or misplaced is noticed."""
    import torch

    for weight in model.parameters():
        if weight.dim() == 1:
            weight.data += 0.3 * torch.randn_like(weight)
    return model


def adapted(model, **changes):
    """With a LoRA adapter that says something, on every matrix of its layers."""
    from peft import LoraConfig, get_peft_model

    changes = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | changes
    tuned = get_peft_model(model, LoraConfig(**changes)).eval()
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    return tuned


def gguf(folder, model, encoder, kind="f16"):
    """The path of a model, saved in the folder `merged`, as a file beside it."""
    from storyforge.export.gguf_file import write_gguf

    model.save_pretrained(folder / "merged")
    write_gguf(folder / "it.gguf", folder / "merged", encoder, kind)
    return folder / "it.gguf"
