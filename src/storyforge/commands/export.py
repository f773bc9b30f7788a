"""The tuned model in other formats: merged for transformers and vLLM, GGUF for llama.cpp and Ollama.

Or its adapter alone, for llama.cpp beside a file of the base.

Each is loaded again and measured against the adapter before it is published.
"""

import gc
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storyforge.commands.repository import section
from storyforge.commands.terminal import say
from storyforge.commands.writers import PROCESSED, PROMPTS, named
from storyforge.core.cache import digest
from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.core.files import published_folder, write_json
from storyforge.core.records import read_prompts
from storyforge.core.splits import read_split
from storyforge.export.manifest import MANIFEST, digests, require_ours
from storyforge.export.templates import modelfile

if TYPE_CHECKING:
    from storyforge.export.merging import Reading
    from storyforge.model.encoding import Encoder
    from storyforge.model.loading import ModelParams

TYPES = ("f16", "q8_0", "lora", "none")
EXPORTS = Path("exports")
RECORD = "export.json"  # what was exported and measured
ASKED = 3  # standard prompts answered greedily


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be exported, where to, and how much worse it may be."""

    adapter: Path
    folder: Path
    type: str
    stories: int
    tolerance: float  # nats a reply token


@dataclass(frozen=True, slots=True)
class Measured:
    """One form of the writer beside the one it was made from."""

    name: str
    bytes: int
    loss: float | None = None  # nats a reply token; None: not measured
    worse: float = 0.0
    same_greedy: int = 0  # of ASKED answers
    logits: float = 0.0  # by how much they differ, on average


def task(adapter: Path | None, to: Path | None, type: str, *, stories: int, tolerance: float) -> Task:
    """UserError before anything is loaded: no adapter, or a folder that holds something else."""
    if type not in TYPES:
        other = f"choose one of {', '.join(TYPES)}"
        if re.fullmatch("q[2-6]_k(_[sml])?", type):
            command = f"llama-quantize tuned-f16.gguf tuned-{type}.gguf {type.upper()}"
            other = f"llama.cpp makes it of --type f16: `{command}`, see docs/EXPORT.md"
        raise UserError(f"--type {type}: {other}")
    if type == "lora" and not stories:
        raise UserError(
            "--stories 0: an adapter alone is read by measuring it: give at least 1, or --type f16"
        )
    (found,) = named(adapter).values()
    folder = to or EXPORTS / found.name
    require_ours(folder)
    return Task(found, folder, type, stories, tolerance)


def export(task: Task) -> "Reader":
    """Everything is made and measured beside its place; UserError leaves what was there before."""
    from storyforge.export.room import required
    from storyforge.model.bases import described
    from storyforge.model.loading import ModelParams, load_encoder

    params = ModelParams.load()
    if task.type != "none":
        from storyforge.export.gguf_file import architecture

        architecture(described(params))
    if task.type not in ("none", "lora") and '"""' in params.system:
        raise UserError('params.yaml: model.system holds """, which a Modelfile cannot: use --type none')
    encoder = load_encoder(params)
    for line in required(task.adapter, task.folder, task.type, params, measured=task.stories > 0):
        say(line)
    reader = Reader(task, params, encoder)
    with published_folder(task.folder) as beside:
        (_adapter_alone if task.type == "lora" else _merged)(reader, beside)
        for path in beside.rglob("*.*"):
            path.chmod(0o644)  # safetensors lets nobody else read its files
        write_json(beside / RECORD, record(reader))
        write_json(beside / MANIFEST, digests(beside))
        require_ours(task.folder)  # it may have changed in the minutes since the start
    return reader


def _merged(reader: "Reader", beside: Path) -> None:
    """merged/ and, unless only that is asked for, gguf/."""
    from storyforge.export import gguf_check
    from storyforge.export.gguf_file import write_gguf
    from storyforge.export.merging import merged, save
    from storyforge.sampling.generate import SamplingParams

    task, encoder, sampling = reader.task, reader.encoder, SamplingParams.load()
    folder = beside / "merged"
    reader.read(reader.tuned, "adapter")
    save(folder, merged(task.adapter, reader.params), encoder, sampling)
    gc.collect()
    reader.read(lambda: reader.saved(folder), "merged", folder)
    if task.type != "none":
        file = _gguf(reader, beside)
        write_gguf(file, folder, encoder, task.type)
        gguf_check.compare(file, folder, encoder)
        page = modelfile(file.name, encoder.chat, reader.params.system, _parameters(sampling))
        file.with_name("Modelfile").write_text(page, encoding="utf-8")
        reader.read(lambda: gguf_check.load(file, reader.saved(folder)), file.name, file.parent)


def _adapter_alone(reader: "Reader", beside: Path) -> None:
    from storyforge.export.gguf_lora import load_lora, write_lora

    tuned, file = reader.tuned(), _gguf(reader, beside)
    write_lora(file, tuned)  # before a minute of reading: it may be refused
    reader.read(lambda: tuned, "adapter")
    reader.read(lambda: load_lora(file, tuned), file.name, file.parent)


def _gguf(reader: "Reader", beside: Path) -> Path:
    file = beside / "gguf" / f"{reader.task.adapter.name}-{reader.task.type}.gguf"
    file.parent.mkdir()
    return file


class Reader:
    """Reads the same stories and prompts with each form of the writer, one in memory at a time."""

    def __init__(self, task: Task, params: "ModelParams", encoder: "Encoder"):
        self.task, self.params, self.encoder = task, params, encoder
        self.measure = section("evaluate")
        # Where nothing is held out, training stories tell as well whether two forms are the same writer.
        sides = ("test", "train") if task.stories else ()
        stories = next(filter(None, (list(read_split(PROCESSED, side)) for side in sides)), [])
        if task.stories and not stories:
            said = " and ".join(f"{PROCESSED}/{side}.jsonl" for side in sides)
            raise UserError(f"{said} are empty: run `dvc repro preprocess`")
        stories = sorted(stories, key=lambda story: rank(story.id, self.measure["seed"]))
        self.rows = [encoder.exchange(each, self.measure["max_tokens"]) for each in stories[: task.stories]]
        self.prompts = [prompt.prompt for prompt in read_prompts(PROMPTS)[:ASKED]]
        self.tokens = sum(row.reply_tokens for row in self.rows)
        self.forms: list[Measured] = []
        self.last: Reading | None = None

    def read(self, load: Callable[[], Any], name: str, folder: Path | None = None) -> None:
        """Measure a form beside the last one, of which it was made; UserError where it is worse.

        Where no stories are asked for, it is noted, and nothing is loaded.
        """
        from storyforge.export.merging import read

        size = sum(path.stat().st_size for path in folder.iterdir()) if folder else 0
        if not self.rows:
            self.forms.append(Measured(name, size))
            return
        options = {"params": self.params, "batch_tokens": self.measure["batch_tokens"], "name": name}
        found = read(load(), self.encoder, self.rows, self.prompts, **options)
        gc.collect()  # PEFT's modules refer to each other
        last, self.last = self.last or found, found
        worse = found.loss - last.loss
        if not worse <= self.task.tolerance:  # nor where it is no number
            raise UserError(
                f"{name}: loses {found.loss:.4f} nats a token, {worse:+.4f} against what it was made from, "
                f"more than {self.task.tolerance}: nothing was exported"
            )
        same = sum(one == other for one, other in zip(found.greedy, last.greedy, strict=True))
        apart = (found.logits - last.logits).abs().mean().item()
        self.forms.append(Measured(name, size, found.loss, worse, same, apart))

    def tuned(self):
        """The base with the adapter on it."""
        from storyforge.model.loading import load_adapter, load_base

        return load_adapter(load_base(self.params), self.task.adapter, self.params)

    def saved(self, folder: Path):
        """The merged model as a user would load it."""
        from storyforge.core.origins import Origin
        from storyforge.model.loading import load_base

        changes = {"origin": Origin.parse(f"folder:{folder}"), "quantization": "none"}
        return load_base(self.params.model_copy(update=changes))


def lines(read: Reader) -> Iterator[str]:
    """For a person."""
    asked, folder = len(read.prompts), read.task.folder
    if not read.rows:
        yield "no test stories asked for: nothing is measured, each tensor of the GGUF file was compared"
    else:
        yield f"{len(read.rows)} test stories of {read.tokens:,} tokens, {asked} prompts answered greedily"
        yield f"adapter  {read.forms[0].loss:.4f} nats a token"
    for last, form in pairwise(read.forms):
        if form.loss is None:
            yield f"{form.name}  not measured; {form.bytes / (1 << 20):,.0f} MiB"
            continue
        yield (
            f"{form.name}  {form.loss:.4f}, {form.worse:+.4f} against {last.name}; greedy text the same "
            f"{form.same_greedy} of {asked} times, logits within {form.logits:.2g} on average; "
            f"{form.bytes / (1 << 20):,.0f} MiB"
        )
    yield f"{folder}: " + ", ".join(sorted(path.name for path in folder.iterdir()))
    if read.task.type == "lora":
        yield f"next: llama-server -m BASE.gguf --lora {next((folder / 'gguf').iterdir())}"
    elif (folder / "gguf").exists():
        yield f"next: cd {folder / 'gguf'} && ollama create {folder.name} -f Modelfile"


def record(read: Reader) -> dict[str, Any]:
    """What was exported from what, and how well; no time, host or path in it."""
    params, asked = read.params, len(read.prompts)
    return {
        "base": params.name,
        "origin": str(params.origin) if params.origin.kind != "folder" else None,
        "adapter_sha256": digest(read.task.adapter / "adapter_model.safetensors"),
        "stories": len(read.rows),
        "reply_tokens": read.tokens,
        "adapter_loss": _rounded(read.forms[0].loss),
        "forms": [
            {
                "name": each.name,
                "loss": _rounded(each.loss),
                "same_greedy": f"{each.same_greedy}/{asked}" if read.rows else None,
            }
            for each in read.forms[1:]
        ],
    }


def _rounded(loss: float | None) -> float | None:
    return None if loss is None else round(loss, 6)


def _parameters(params: Any) -> list[tuple[str, object]]:
    """The sampling defaults in Ollama's words; our penalty is for the whole reply."""
    return [
        ("temperature", params.temperature),
        ("top_k", 0),
        ("top_p", params.top_p),
        ("min_p", params.min_p),
        ("repeat_penalty", params.repetition_penalty),
        ("repeat_last_n", params.max_new_tokens),
        ("num_predict", params.max_new_tokens),
    ]
