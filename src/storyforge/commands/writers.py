"""The base and its adapters, loaded once and sampled as `evaluate` does it."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from storyforge.commands.terminal import waiting
from storyforge.core.choice import sample_seed
from storyforge.core.errors import UserError
from storyforge.core.files import whole
from storyforge.core.records import Prompt, read_prompts
from storyforge.core.splits import read_split, split_files
from storyforge.core.text import printable
from storyforge.evaluate.prompts import AskedParams, fitting_prompts

if TYPE_CHECKING:
    from storyforge.sampling.generate import SamplingParams, Written

BASE, TUNED, ALIGNED = "base", "tuned", "aligned"
ADAPTER, ALIGNED_ADAPTER = Path("models/tuned"), Path("models/aligned")
MAKERS = {
    ADAPTER: "run `dvc repro train`",
    ALIGNED_ADAPTER: "run `dvc repro align`, with revise.prompts above 0",
}
PROMPTS, PROCESSED = Path("data/prompts.yaml"), Path("data/processed")
INCOMPLETE = "\ufffd"  # how the first bytes of a character decode


@dataclass(frozen=True, slots=True)
class Delta:
    """The next part of a reply; `tokens` counts the whole reply so far."""

    text: str
    tokens: int
    ended: bool = False  # by a stop token


def how_it_ended(tokens: int, ended: bool) -> str:
    return f"{tokens} tokens, {'ended by itself' if ended else 'cut'}"


def indented(text: str) -> list[str]:
    """Lines of a Markdown code block, in which nothing is markup."""
    return [*(f"    {line}" for line in printable(text).splitlines()), ""]


def sampling(changes: Mapping[str, Any]) -> "SamplingParams":
    """The `sampling` of params.yaml with some values changed; UserError names one that cannot be."""
    from storyforge.sampling.generate import SamplingParams

    given = {key: value for key, value in changes.items() if value is not None}
    try:
        return SamplingParams.model_validate(SamplingParams.load().model_dump() | given)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{first['loc'][0]} = {first['input']}: {first['msg']}") from None


def asked(texts: Sequence[str], kinds: Sequence[str] = (), *, least_held_out: int = 0) -> list[Prompt]:
    """The prompts given, and those of data/prompts.yaml of a kind or id; where none is given, the report's.

    These begin with the recipe's prompts of test stories, `least_held_out` of them where there are so many.
    """
    if blank := [text for text in texts if not text.strip()]:
        raise UserError(f"{blank[0]!r} is no prompt: say what the story is about")
    own = [Prompt(text, "yours", text) for text in (whole(text, "the prompt") for text in texts)]
    if texts and not kinds:
        return own
    standard = read_prompts(PROMPTS)
    for kind in kinds:
        chosen = [prompt for prompt in standard if kind.casefold() in (prompt.id, prompt.kind.casefold())]
        if not chosen:
            known = ", ".join(dict.fromkeys(prompt.kind for prompt in standard))
            raise UserError(f"{PROMPTS} has no prompt of kind or id {kind!r}; there are: {known}")
        own += chosen
    if own:
        return own
    params = AskedParams.load()
    wanted = params.prompts.model_copy(update={"held_out": max(params.prompts.held_out, least_held_out)})
    are_there = split_files(PROCESSED, "test")[0].exists()
    tests = read_split(PROCESSED, "test") if are_there else ()
    return fitting_prompts(standard, tests, wanted, params.seed)


def named(adapter: Path | None, more: Iterable[Path] = ()) -> dict[str, Path]:
    """Writer's name → its adapter; UserError names the command that makes a missing one.

    The first is tuned, unless it is the aligned one itself; a name of `more` is as much of the path as tells
    it from the names before it.
    """
    is_aligned = adapter is not None and adapter.resolve() == ALIGNED_ADAPTER.resolve()
    adapters = {ALIGNED if is_aligned else TUNED: adapter or ADAPTER}
    for path in more:
        parts = Path(os.path.abspath(path)).parts
        names = ("/".join(parts[-count:]) for count in range(1, len(parts) + 1))
        name = next((name for name in names if name not in (BASE, *adapters)), None)
        if name is None:
            raise UserError(f"{path}: given twice")
        adapters[name] = path
    for path in adapters.values():
        if not (path / "adapter_config.json").exists():
            remedy = MAKERS.get(Path(os.path.relpath(path)), "give an adapter's folder")
            raise UserError(f"{path}: no adapter there: {remedy}")
    return adapters


def all_named(tuned: Path | None, more: Iterable[Path] | None) -> dict[str, Path]:
    """As `named`, with the aligned writer beside the tuned one that it was made from, where there is one."""
    others, is_there = list(more or ()), (ALIGNED_ADAPTER / "adapter_config.json").exists()
    if tuned is None and is_there and ALIGNED_ADAPTER.resolve() not in map(Path.resolve, others):
        others.insert(0, ALIGNED_ADAPTER)
    return named(tuned, others)


class Writers:
    """One loaded model that can be sampled as `base` and as every name of `adapters`."""

    def __init__(self, adapters: Mapping[str, Path]):
        from storyforge.model.device import accelerator
        from storyforge.model.loading import ModelParams, load_adapter, load_base, load_encoder

        params = ModelParams.load()
        self.encoder, self.model = load_encoder(params), load_base(params)
        self.names = (BASE, *adapters)
        self.adapters: dict[str, str] = {}  # writer's name → PEFT's name, without dots
        for name, path in adapters.items():
            self.adapters[name] = f"adapter-{len(self.adapters)}" if self.adapters else "default"
            self.model = load_adapter(self.model, path, params, self.adapters[name])
        self.model.eval()
        self.autocast: Callable = accelerator(params).autocast

    def encoded(
        self, prompt: str, params: "SamplingParams", turns: Sequence[tuple[str, str]] = ()
    ) -> tuple[list[int], int]:
        """Tokens up to the reply, and how many of the first turns (prompt, reply) had no room before it."""
        from storyforge.sampling.generate import fitting

        room = self.model.config.max_position_embeddings - params.max_new_tokens
        for start in range(len(turns) + 1):
            roles = [(("user", asked), ("assistant", reply)) for asked, reply in turns[start:]]
            ids = self.encoder.prompt(prompt, [*chain(*roles)])
            if len(ids) <= room:
                break
        return fitting(self.model, ids, params), start

    @contextmanager
    def switched(self, name: str) -> Iterator[Any]:
        """The model with that writer's adapter, or without one."""
        with self.autocast():
            if name in self.adapters:
                self.model.set_adapter(self.adapters[name])
            off = self.adapters and name not in self.adapters
            with self.model.disable_adapter() if off else nullcontext():
                yield self.model

    def write(self, name: str, prompts: Sequence[Prompt], params: "SamplingParams") -> list["Written"]:
        """A reply to each prompt, with the seeds of the report's first samples.

        Batched with other prompts, bf16 rounds differently, which sometimes changes a token.
        """
        from storyforge.sampling.generate import write

        texts, seeds = [p.prompt for p in prompts], [sample_seed(p.id, 0, params.seed) for p in prompts]
        with self.switched(name) as model:
            return write(model, self.encoder, texts, params, seeds=seeds)

    def stream(self, name: str, ids: Sequence[int], params: "SamplingParams", seed: int) -> Iterator[Delta]:
        """The reply as it is written; the texts joined are what `write` gives."""
        from storyforge.sampling.generate import next_tokens

        with self.switched(name) as model:
            steps = next_tokens(model, [ids], [seed], params, self.encoder.stops)
            yield from deltas((step[0] for step in steps), self.encoder.decode, self.encoder.stops)


def loaded(adapters: Mapping[str, Path], changes: Mapping[str, Any]) -> tuple[Writers, "SamplingParams"]:
    with waiting("loading the model"):
        params = sampling(changes)  # first: it is quick to fail
        return Writers(adapters), params


def deltas(
    tokens: Iterable[int], decode: Callable[[Sequence[int]], str], stops: frozenset[int]
) -> Iterator[Delta]:
    """Incomplete characters and white space are held back until more follows; none stands at the ends."""
    ids: list[int] = []
    text, shown, ended = "", 0, False
    for count, token in enumerate(tokens, 1):
        ended = token in stops
        if not ended:
            ids.append(token)
            text = decode(ids).strip()
        safe = len(text.rstrip(INCOMPLETE).rstrip())
        if safe > shown:
            yield Delta(text[shown:safe], count)
            shown = safe
        if ended:
            break
    yield Delta(text[shown:], len(ids) + ended, ended)
