"""`storyforge continue`: the next passage of a text that somebody is writing."""

import os
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from storyforge.commands.options import Tuned
from storyforge.commands.terminal import aside, say
from storyforge.core.errors import UserError

if TYPE_CHECKING:
    from storyforge.commands.writers import Delta, Writers
    from storyforge.sampling.generate import SamplingParams

PAGE_WORDS = 200  # read back where the recipe trains no pages
SENTENCE_ENDS = tuple(".!?…\"'”’)]*")
OF_TEXTS = (".txt", ".text", ".md", ".markdown", "")  # what --append may write to


def go_on(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A text file or document: the story so far.")],
    *,
    adapter: Tuned = None,
    base: Annotated[bool, typer.Option("--base", help="Without the adapter.")] = False,
    append: Annotated[bool, typer.Option("--append", help="Add it to the text file.")] = False,
    **sampling,
) -> None:
    """Write on from the end of a text. Only the new passage goes to stdout.

    The model reads the last page. Another --seed gives another passage.

    \b
    Examples:
      storyforge continue chapter-3.txt
      storyforge continue chapter-3.txt --append --length 300 --seed 5
    """
    from storyforge.commands import writers

    file = Path(context.find_root().obj) / file
    text = read(file)
    if append:  # now: a passage takes its time
        utf8(file)
    page, trained = last_page_of(text)
    if not trained:
        aside("no profile in params.yaml has page_words: going on from a page is not what it was trained for")
    ready, params = writers.loaded({} if base else writers.named(adapter), sampling)
    name, written = ready.names[-1], []
    with closing(passage(ready, name, page, params)) as stream:
        for delta in stream:
            say(delta.text, end="")
            written.append(delta.text)
    say("")
    aside(f"{name}: {writers.how_it_ended(delta.tokens, delta.ended)}; seed {params.seed}")
    if append:
        add(file, text, "".join(written))
        aside(f"added to {file}")


def passage(ready: "Writers", name: str, page: str, params: "SamplingParams") -> "Iterator[Delta]":
    """What follows a page, as it is written; asked for as the recipe's training asks."""
    from storyforge.preprocess.prose import continuation_prompt

    ids, _ = ready.encoded(continuation_prompt(page), params)
    yield from ready.stream(name, ids, params, params.seed)


def last_page_of(text: str) -> tuple[str, bool]:
    """As much of the end as the recipe trains to go on from, and whether it trains that."""
    from storyforge.preprocess.prose import last_page

    words, trained = page_words()
    return last_page(text, words), trained


def page_words() -> tuple[int, bool]:
    """How many words of the text are read back, and whether the adapter's recipe has trained that."""
    from storyforge.preprocess.stage import PreprocessParams

    profiles = PreprocessParams.load().profiles.values()
    trained = [profile.page_words for profile in profiles if profile.page_words]
    return max(trained, default=PAGE_WORDS), bool(trained)


def read(file: Path) -> str:
    """The text of one file of any kind that `collect` reads; UserError where there is none."""
    from storyforge.collect.folder import Entry, records
    from storyforge.collect.reading import decoded

    if not file.is_file():
        raise UserError(f"{file}: there is no such file")
    (record, *more) = list(records({file.name: Entry(file)})) or [None]
    if record is None or more or file.suffix.lower() in (".jsonl", ".ndjson", ".json", ".csv", ".zip"):
        raise UserError(f"{file}: holds no one text: give a text file or a document")
    if record.unusable:
        raise UserError(f"{file}: {record.unusable}: {record.unusable.detail or 'save it as UTF-8 text'}")
    text = decoded(record.bytes).replace("\r\n", "\n")
    if "\0" in text:
        raise UserError(f"{file}: is no text: it holds a NUL character")
    if not text.strip():
        raise UserError(f"{file}: is empty: write a first sentence")
    return text


def joined(text: str, more: str) -> str:
    """The text with the passage after it: a new paragraph where the last sentence has ended."""
    before = text.rstrip()
    between = "\n\n" if before.endswith(SENTENCE_ENDS) else " "
    return f"{before}{between}{more}\n"


def utf8(file: Path) -> tuple[bytes, str]:
    """The mark of a text file's encoding, if it has one, and its text; UserError where it is not in UTF-8."""
    if file.suffix.lower() not in OF_TEXTS:
        raise UserError(f"{file}: --append writes to text files only: leave it out, or save as .txt")
    data = file.read_bytes()
    mark = data[: len(BOM_UTF8)] if data.startswith(BOM_UTF8) else b""
    try:
        return mark, data.removeprefix(mark).decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{file}: is not UTF-8: save it as UTF-8, or run without --append") from None


def add(file: Path, text: str, more: str) -> None:
    """Write the longer text; mark, line ends and mode stay, and a link stays a link.

    UserError where the file was changed meanwhile, or is not UTF-8.
    """
    from storyforge.core.files import published

    file = file.resolve()
    mark, before = utf8(file)
    if before.replace("\r\n", "\n") != text:
        raise UserError(f"{file}: was changed while the passage was written: nothing was added to it")
    longer = joined(text, more)
    if "\r\n" in before:
        longer = longer.replace("\n", "\r\n")
    with published(file) as out:
        os.fchmod(out.fileno(), file.stat().st_mode)
        out.write(mark + longer.encode())
