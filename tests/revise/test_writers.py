"""Who criticises and revises: the base and the tuned writer, or a service."""

import pytest

from storyforge.judging.params import CallParams
from storyforge.model.encoding import Encoder
from storyforge.revise import writers
from storyforge.revise.params import ServiceParams
from storyforge.sampling.generate import SamplingParams, write

SAMPLING = SamplingParams(
    seed=1, max_new_tokens=10, temperature=1.0, top_p=1.0, min_p=0.0, repetition_penalty=1.0
)
CALLS = ServiceParams(
    provider="openai",
    model="local",
    effort=None,
    base_url="http://127.0.0.1:1",
    max_dollars=0,
    batch=False,
    workers=1,
)


@pytest.fixture
def by_model(tuned, encoder, tmp_path, monkeypatch):
    """The two, told in a few words, since the tiny model reads 512 bytes."""
    monkeypatch.setattr(writers, "CRITIC", "Find a fault.")
    monkeypatch.setattr(writers, "REVISER", "Mend it.")
    monkeypatch.setattr(writers, "CRITIQUE_TOKENS", 12)
    return writers.by_model(tuned, encoder, SAMPLING, tmp_path)


def test_the_base_criticises_with_its_likeliest_words(by_model, tuned, encoder):
    told = Encoder(encoder.tokenizer, encoder.chat, "Find a fault.")
    greedy = SAMPLING.model_copy(update={"temperature": 0.0, "max_new_tokens": 12})
    with tuned.disable_adapter():
        wanted = write(tuned, told, ["Rain fell."], greedy, seeds=[1])
    assert by_model[0](["Rain fell."], [7], "critique-1") == wanted
    assert wanted != write(tuned, told, ["Rain fell."], greedy, seeds=[1])


def test_the_tuned_writer_revises_with_its_seed(by_model, tuned, encoder):
    told = Encoder(encoder.tokenizer, encoder.chat, "Mend it.")
    wanted = write(tuned, told, ["Rain fell.", "Go."], SAMPLING, seeds=[7, 8])
    assert by_model[1](["Rain fell.", "Go."], [7, 8], "revision-1") == wanted


def test_a_request_that_is_too_long_has_no_answer_and_the_others_have_theirs(by_model):
    long, short = "a" * 600, "Rain fell."
    (alone,) = by_model[1]([short], [7], "revision-1")
    assert by_model[1]([long, short, long], [6, 7, 8], "revision-1") == [None, alone, None]


def test_a_service_is_asked_for_texts_and_what_it_does_not_answer_is_none(encoder, monkeypatch, tmp_path):
    monkeypatch.setenv("STORYFORGE_CACHE", str(tmp_path))

    class Answer:
        def __init__(self, value):
            self.value = value

    def ask(calls, *, provider, params, validate, store):
        assert provider == "openai" and isinstance(params, CallParams) and store.parent.is_dir()
        asked.extend(calls)
        with pytest.raises(ValueError):
            validate({"text": None})
        validate({"text": ""})
        return [Answer({"text": " A story.\n"}), Answer(None)]

    asked = []
    monkeypatch.setattr(writers, "ask", ask)
    critic, reviser = writers.by_service(encoder, CALLS)
    (written, none) = reviser(["one", "two"], [1, 2], "revision-1")
    assert (written.text, written.tokens, written.ended, none) == ("A story.", 9, True, None)
    critic(["three", "four"], [1, 2], "critique-1")
    assert [call.text for call in asked] == ["one", "two", "three", "four"]
    assert [call.system for call in asked] == 2 * [writers.REVISER] + 2 * [writers.CRITIC]
