"""What the writers answer to held-out prompts, and the human texts that stand beside."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from storyforge.core.choice import rank, sample_seed
from storyforge.core.errors import UserError
from storyforge.core.records import Exchange
from storyforge.model.encoding import Encoder
from storyforge.model.loading import ModelParams, load_adapter, load_base
from storyforge.sampling.generate import SamplingParams, fitting
from storyforge.sampling.kept import write_kept

BASE, TUNED, ALIGNED = "base", "tuned", "aligned"
CONSTITUTION = "constitution"  # the base with the principles as its system prompt: the cheap rival
HUMAN = "human"
ADAPTERS = {BASE: None, TUNED: "default", ALIGNED: "aligned", CONSTITUTION: None}  # PEFT's names


@dataclass(frozen=True, slots=True)
class Text:
    """An answer to a held-out prompt; `ended` tells whether its writer stopped by itself."""

    prompt_id: str
    group: str
    prompt: str
    sample: int
    seed: int | None  # None: a person's
    writer: str
    text: str
    tokens: int
    ended: bool
    human: bool = False


def held_out(tests: Sequence[Exchange], count: int, seed: int) -> list[Exchange]:
    """`count` test stories of different prompts, by hash: neither order nor other stories matter."""
    found: dict[str, Exchange] = {}
    for story in sorted(tests, key=lambda story: rank(story.id, seed)):
        found.setdefault(story.prompt, story)
    return list(found.values())[:count]


def load_writers(params: ModelParams, tuned: Path, aligned: Path):
    """One base with both adapters on it."""
    model = load_adapter(load_base(params), tuned, params, ADAPTERS[TUNED])
    return load_adapter(model, aligned, params, ADAPTERS[ALIGNED])


@contextmanager
def switched(model, writer: str) -> Iterator[None]:
    """The model is that writer inside."""
    adapter = ADAPTERS[writer]
    if adapter:
        model.set_adapter(adapter)
    with nullcontext() if adapter else model.disable_adapter():
        yield


def answers(
    model,
    encoders: Mapping[str, Encoder],
    stories: Sequence[Exchange],
    sampling: SamplingParams,
    *,
    samples: int,
    work: Path,
) -> list[Text]:
    """`samples` answers of each writer to each story's prompt, with the same seeds; kept in `work` by batch.

    A CONSTITUTION that leaves a small model no room for a reply is left out.
    """
    asked = [(story, number) for story in stories for number in range(samples)]
    prompts = [story.prompt for story, _ in asked]
    seeds = [sample_seed(story.id, number, sampling.seed) for story, number in asked]
    writers = [writer for writer in encoders if _fits(model, writer, encoders[writer], prompts, sampling)]
    found = []
    for writer in writers:
        with switched(model, writer):
            replies = write_kept(
                model, encoders[writer], prompts, sampling, seeds=seeds, work=work, name=writer
            )
        for (story, number), seed, reply in zip(asked, seeds, replies, strict=True):
            about = (story.id, story.group, story.prompt, number, seed, writer)
            found.append(Text(*about, reply.text, reply.tokens, reply.ended))
    return found


def human_texts(encoder: Encoder, stories: Sequence[Exchange], max_tokens: int) -> list[Text]:
    """The stories themselves, cut to as many tokens as a writer has."""
    found = []
    for story in stories:
        ids = encoder.text(story.story)
        cut = len(ids) > max_tokens
        text = encoder.decode(ids[:max_tokens]).strip() if cut else story.story
        about = (story.id, story.group, story.prompt, 0, None, HUMAN)
        found.append(Text(*about, text, min(len(ids), max_tokens), story.ended and not cut, human=True))
    return found


def _fits(model, writer: str, encoder: Encoder, prompts: Sequence[str], sampling: SamplingParams) -> bool:
    """UserError where any other writer has no room for a prompt and a reply."""
    try:
        for prompt in prompts:
            fitting(model, encoder.prompt(prompt), sampling)
    except UserError:
        if writer != CONSTITUTION:
            raise
        return False
    return True
