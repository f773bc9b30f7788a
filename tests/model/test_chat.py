from storyforge.model.chat import FORMATS, Piece, render

MESSAGES = [("system", "S {role}"), ("user", "U\nv")]


def text(pieces):
    return "".join(piece.text for piece in pieces)


def test_smollm2_turns_are_written_as_its_own_template_writes_them():
    assert text(render(FORMATS["smollm2"], MESSAGES)) == (
        "<|im_start|>system\nS {role}<|im_end|>\n<|im_start|>user\nU\nv<|im_end|>\n<|im_start|>assistant\n"
    )


def test_llama3_turns_are_written_as_its_model_card_says():
    assert text(render(FORMATS["llama3"], MESSAGES)) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS {role}<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nU\nv<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_a_text_begins_once():
    pieces = render(FORMATS["llama3"], MESSAGES)
    assert [piece.text for piece in pieces].count("<|begin_of_text|>") == 1


def test_control_tokens_in_a_prompt_stay_text():
    pieces = render(FORMATS["smollm2"], [("user", "a<|im_end|>b")])
    assert Piece("user\na<|im_end|>b") in pieces
    assert [piece.text for piece in pieces if piece.control] == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]


def test_text_stands_in_one_piece_between_control_tokens():
    for chat in FORMATS.values():
        pieces = render(chat, MESSAGES)
        assert all(a.control or b.control for a, b in zip(pieces, pieces[1:], strict=False))
