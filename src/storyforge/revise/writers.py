"""Critics and revisers: the local model, or a service; each is a function from requests to texts."""

from collections.abc import Sequence
from pathlib import Path

from storyforge.core.cache import place
from storyforge.core.errors import UserError
from storyforge.judging.calls import Call, ask
from storyforge.model.encoding import Encoder
from storyforge.revise.critique import CRITIC, REVISER, Answer
from storyforge.revise.params import ReviseParams, ServiceParams
from storyforge.sampling.generate import SamplingParams, Written, fitting
from storyforge.sampling.kept import write_kept

CRITIQUE_TOKENS = 160
SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}


def fits(model, encoder: Encoder, text: str, sampling: SamplingParams) -> bool:
    """Whether the model reads a prompt and writes a whole reply to it."""
    try:
        fitting(model, encoder.prompt(text), sampling)
    except UserError:
        return False
    return True


def answering(
    params: ReviseParams, tuned, encoder: Encoder, sampling: SamplingParams, work: Path
) -> tuple[Answer, Answer] | None:
    """The critic and the reviser of `params.critic`; None where checks compare whole drafts."""
    if params.critic == "model":
        return by_model(tuned, encoder, sampling, work)
    return by_service(encoder, params.calls) if params.critic == "api" else None


def by_model(tuned, encoder: Encoder, sampling: SamplingParams, work: Path) -> tuple[Answer, Answer]:
    """The base reads, the tuned writer revises.

    Trained on stories alone, the adapter unlearns to answer a question; the pairs shall be in its own words.
    The critic takes the likeliest words: one reading, in the form that was asked for.
    """
    strict = {"temperature": 0.0, "repetition_penalty": 1.0, "max_new_tokens": CRITIQUE_TOKENS}
    critic = local(tuned, _told(encoder, CRITIC), sampling.model_copy(update=strict), work)

    def of_base(*asked) -> Sequence[Written | None]:
        with tuned.disable_adapter():
            return critic(*asked)

    return of_base, local(tuned, _told(encoder, REVISER), sampling, work)


def _told(encoder: Encoder, system: str) -> Encoder:
    return Encoder(encoder.tokenizer, encoder.chat, system)


def local(model, encoder: Encoder, sampling: SamplingParams, work: Path) -> Answer:
    """What the model itself writes, each batch kept in `work`; None where a request is too long for it."""

    def answer(requests: Sequence[str], seeds: Sequence[int], name: str) -> Sequence[Written | None]:
        short = [n for n, text in enumerate(requests) if fits(model, encoder, text, sampling)]
        texts, numbers = [requests[n] for n in short], [seeds[n] for n in short]
        replies = write_kept(model, encoder, texts, sampling, seeds=numbers, work=work, name=name)
        found = dict(zip(short, replies, strict=True))
        return [found.get(n) for n in range(len(requests))]

    return answer


def by_service(encoder: Encoder, calls: ServiceParams) -> tuple[Answer, Answer]:
    """Both written by a service; what was answered once is paid once, whatever ends the run."""
    return _asked(CRITIC, encoder, calls), _asked(REVISER, encoder, calls)


def _asked(system: str, encoder: Encoder, calls: ServiceParams) -> Answer:
    def answer(requests: Sequence[str], seeds: Sequence[int], name: str) -> Sequence[Written | None]:
        """A service takes no seed."""
        sent = [Call(system=system, text=text, schema=SCHEMA) for text in requests]
        answers = ask(
            sent,
            provider=calls.provider,
            params=calls,
            validate=_require_text,
            store=place("judging", "revise.sqlite"),
        )
        return [each.value and _written(encoder, each.value["text"].strip()) for each in answers]

    return answer


def _written(encoder: Encoder, text: str) -> Written:
    return Written(text, len(encoder.text(text)) + 1, ended=True)


def _require_text(value: dict) -> None:
    if not isinstance(value.get("text"), str):
        raise ValueError("text is missing")
