"""Chat templates in the manner of the families that people use, none a copy; a tokenizer for them."""

import tiny

EACH = "{%- for m in messages %}"
CHATML = (
    "{%- if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
    + EACH
    + "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% set first = messages[0].role == 'system' %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nKnowledge until 2023\nToday: '"
    " + strftime_now('%d %b %Y') + '\n\n' }}{% if first %}{{ messages[0].content }}{% endif %}"
    "{{ '<|eot_id|>' }}"
    "{% for m in (messages[1:] if first else messages) %}"
    "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | trim }}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
TURN = "{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
OPENED = "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
GEMMA = (  # the system's text before the first user's
    "{{ bos_token }}{% set first = messages[0].role == 'system' %}"
    "{% for m in (messages[1:] if first else messages) %}"
    + TURN
    + "{% if first and loop.first %}{{ messages[0].content + '\n\n' }}{% endif %}"
    "{{ m.content | trim + '<end_of_turn>\n' }}{% endfor %}" + OPENED
)
GEMMA2 = (  # none at all
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('No system role') }}{% endif %}"
    + EACH
    + TURN
    + "{{ m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    + OPENED
)
MISTRAL = (  # the system's text before the last user's, as long as that is not answered
    "{{ bos_token }}{% set first = messages[0].role == 'system' %}"
    "{% for m in (messages[1:] if first else messages) %}{% if m.role == 'user' %}{{ '[INST]' }}"
    "{% if first and loop.last %}"
    "{{ messages[0].content + '\n\n' }}{% endif %}{{ m.content + '[/INST]' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
QWEN3 = (
    EACH
    + "{{ '<|im_start|>' + m.role + '\n' }}"
    + "{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
PHI3 = (
    EACH + "{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
CONTROL = (
    "<s> </s> <bos> <|im_start|> <|im_end|> <|endoftext|> <|begin_of_text|> <|start_header_id|> "
    "<|end_header_id|> <|eot_id|> <|end_of_text|> <|eom_id|> <start_of_turn> <end_of_turn> [INST] [/INST] "
    "<|system|> <|user|> <|assistant|> <|end|>"
).split()
STYLES = {  # template, token that begins, tokens that end
    "ChatML": (CHATML, None, ["<|im_end|>", "<|endoftext|>"]),
    "Llama-3": (LLAMA3, "<|begin_of_text|>", ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"]),
    "Gemma": (GEMMA, "<bos>", ["<end_of_turn>"]),
    "Gemma-2": (GEMMA2, "<bos>", ["<end_of_turn>"]),
    "Mistral": (MISTRAL, "<s>", ["</s>"]),
    "Qwen3": (QWEN3, None, ["<|im_end|>", "<|endoftext|>"]),
    "Phi-3": (PHI3, "<s>", ["<|endoftext|>", "<|end|>"]),
}


def tokenizer(template, bos=None, eos="</s>"):
    """Knows the control tokens of all of them."""
    from tokenizers import AddedToken

    from storyforge.model.chat import FORMATS

    made = tiny.tokenizer(FORMATS.values(), learned=["It rained. Tell of rain."] * 3)
    made.add_special_tokens({"additional_special_tokens": [AddedToken(token) for token in CONTROL]})
    made.bos_token, made.eos_token, made.chat_template = bos, eos, template
    return made
