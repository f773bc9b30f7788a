"""The command line: options and their help; commands/ does the work.

What a command needs is imported in its function, so that help comes at once.
"""

import secrets
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from storyforge.core import before_torch as before_torch
from storyforge.commands.continuing import go_on
from storyforge.commands.options import HELP_OPTIONS, Commands, More, Presets, Tuned, at_the_root, help_texts
from storyforge.commands.pull import pull
from storyforge.commands.recipe import make
from storyforge.commands.terminal import aside, say
from storyforge.core.choice import sample_seed
from storyforge.core.errors import UserError

app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": HELP_OPTIONS, "max_content_width": 80},
)


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Read stories, sample models, check the repository. `dvc repro` builds it all."""
    context.obj = Path.cwd()  # what a path given to a command is relative to
    if version:
        from importlib import metadata

        typer.echo(f"storyforge {metadata.version('storyforge')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
@at_the_root
def look(
    stage: Annotated[
        str, typer.Argument(help="raw, train, val, test, rejected, revised or verdicts.")
    ] = "train",
    *,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 1,
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    reason: Annotated[str | None, typer.Option(help="Rejected for this.")] = None,
    id: Annotated[str | None, typer.Option(help="The story of this id.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="As training sees it, loss in green.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, show_default="random", help="Which ones.")] = None,
) -> None:
    """Show random stories of a stage, or what each rule rejected.

    revised: pairs of a better and a worse text that align learns from. verdicts: what a judge said of two.

    \b
    Examples:
      storyforge look train -n 3
      storyforge look val --tokens --seed 7
      storyforge look rejected
      storyforge look rejected --reason foreign -n 5
      storyforge look revised
      storyforge look verdicts --seed 3
    """
    from storyforge.commands import look

    seed = secrets.randbelow(10_000) if seed is None else seed
    wanted = {"source": source, "reason": reason, "id": id}
    if look.look(stage, count, seed, tokens=tokens, **wanted):
        aside(f"seed {seed}")


@app.command()
@at_the_root
def sample(
    prompt: Annotated[str | None, typer.Argument(help="What the story is about.")] = None,
    *,
    preset: Presets = None,
    adapter: Tuned = None,
    base: Annotated[bool, typer.Option("--base", help="Without the adapter.")] = False,
    **sampling,
) -> None:
    """Write one story. Only the story goes to stdout.

    \b
    Examples:
      storyforge sample "A lighthouse keeper hears a knock from the sea."
      storyforge sample --preset horror --temperature 1.1 --seed 5 > horror.txt
      storyforge sample --preset horror --adapter models/aligned
    """
    from storyforge.commands import writers

    if (prompt is None) == (len(preset or []) != 1):
        raise UserError('one prompt is needed: storyforge sample "what it is about", or --preset mystery')
    asked, *_ = writers.asked([] if prompt is None else [prompt], preset or [])  # a kind may have several
    ready, params = writers.loaded({} if base else writers.named(adapter), sampling)
    ids, _ = ready.encoded(asked.prompt, params)
    name, seed = ready.names[-1], sample_seed(asked.id, 0, params.seed)
    with closing(ready.stream(name, ids, params, seed)) as stream:
        for delta in stream:
            say(delta.text, end="")
    say("")
    end = writers.how_it_ended(delta.tokens, delta.ended)
    aside(f"{name}: {end}; seed {params.seed}, temperature {params.temperature}")


@app.command()
@at_the_root
def compare(
    prompts: Annotated[
        list[str] | None, typer.Argument(help="What to write about.", show_default="those of the report")
    ] = None,
    *,
    preset: Presets = None,
    tuned: Tuned = None,
    more: More = None,
    markdown: Annotated[Path | None, typer.Option(resolve_path=True, help="Write a page instead.")] = None,
    **sampling,
) -> None:
    """Show base, tuned and aligned side by side on the same prompts.

    \b
    Examples:
      storyforge compare
      storyforge compare "A wedding in a snowed-in station." --length 120
      storyforge compare --preset romance --adapter models/older --markdown r.md
    """
    from storyforge.commands import compare, writers
    from storyforge.core.files import published

    asked = writers.asked(prompts or [], preset or [])
    adapters = writers.all_named(tuned, more)
    ready, params = writers.loaded(adapters, sampling)
    answers = compare.answered(ready, asked, params)
    if markdown is None:
        return compare.show(answers)
    with published(markdown) as file:
        file.write(compare.page(answers, params).encode())
    aside(f"{len(asked)} prompts, {len(adapters) + 1} writers: {markdown}")


@app.command()
@at_the_root
def chat(
    context: typer.Context,
    *,
    writer: Annotated[str, typer.Option(help="The first: base, tuned, aligned or another's name.")] = "tuned",
    tuned: Tuned = None,
    more: More = None,
    **sampling,
) -> None:
    """Chat with a model that remembers the conversation.

    \b
    Example:
      storyforge chat --temperature 0.9
    """
    from storyforge.commands import chat, writers

    adapters = writers.all_named(tuned, more)
    if writer not in (writers.BASE, *adapters):
        raise UserError(f"--writer {writer}: choose one of {', '.join((writers.BASE, *adapters))}")
    ready, params = writers.loaded(adapters, sampling)
    aside("/help for help, /quit or Ctrl-D to end")
    chat.converse(chat.Chat(ready, writer, params, home=context.find_root().obj))


@app.command()
@at_the_root
def estimate(
    context: typer.Context,
    *,
    recipe: Annotated[str | None, typer.Option(help="Plan it: a name in recipes/, or a file.")] = None,
    base: Annotated[str | None, typer.Option(help="On it: a name in recipes/bases/, or a file.")] = None,
    price_per_hour: Annotated[float | None, typer.Option(min=0, help="Of the machine.")] = None,
    steps: Annotated[int | None, typer.Option(min=2, show_default="8", help="To run here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For programs: seconds and bytes.")] = False,
) -> None:
    """Tell time, memory and disk of training before it starts.

    With --recipe or --base, or without data: a plan from the files alone, with published rates of common
    machines. Else a few real steps on this machine; nothing of them is kept.

    \b
    Examples:
      storyforge estimate --recipe my-stories --base qwen3-4b
      storyforge estimate --price-per-hour 1.20
    """
    from storyforge.commands import estimate

    estimate.run(recipe, base, steps, price_per_hour, as_json=json, home=context.find_root().obj)


@app.command()
@at_the_root
def export(
    *,
    adapter: Tuned = None,
    to: Annotated[Path | None, typer.Option(resolve_path=True, show_default="exports/NAME")] = None,
    type: Annotated[str, typer.Option(help="Of the GGUF file: f16, q8_0, lora or none.")] = "f16",
    stories: Annotated[int, typer.Option(min=0, help="Test stories to measure on; 0: no measuring.")] = 24,
    tolerance: Annotated[float, typer.Option(min=0, help="Most nats a token it may lose.")] = 0.02,
) -> None:
    """Merge the adapter into 16-bit weights and a GGUF file.

    merged/ is for transformers and vLLM, gguf/ for llama.cpp and Ollama. Both are measured, and refused
    where they are worse than the adapter. Type lora is the adapter alone, for llama.cpp's --lora.

    \b
    Examples:
      storyforge export
      storyforge export --adapter models/aligned --type q8_0
    """
    from storyforge.commands import export

    task = export.task(adapter, to, type, stories=stories, tolerance=tolerance)
    for line in export.lines(export.export(task)):
        say(line)


@app.command()
@at_the_root
def verify() -> None:
    """Compare every output and cached file with dvc.lock.

    DVC itself does not notice a cached file that has changed on the disk. Status 1 if any is wrong.

    \b
    Example:
      storyforge verify && dvc push
    """
    from storyforge.commands import verify

    if not verify.run():
        raise typer.Exit(1)


@app.command()
@at_the_root
def doctor(*, fix: Annotated[bool, typer.Option("--fix", help="Repair without asking.")] = False) -> None:
    """Find what is wrong with this clone and this machine.

    Leftovers of killed runs, broken lock files, params changed since the last run, packages other than
    the pinned ones, a missing GPU or token, a full disk, data that is in no remote. Asks before it repairs
    anything. Status 1 if something stays wrong.

    \b
    Example:
      storyforge doctor --fix
    """
    from storyforge.commands import doctor

    if not doctor.run(fix):
        raise typer.Exit(1)


@app.command(hidden=True)
def page() -> None:
    """All help texts as docs/COMMANDS.md has them.

    \b
    Example:
      storyforge page > docs/COMMANDS.md
    """
    typer.echo(help_texts(app), nl=False)


for name, command in {"continue": go_on, "pull": pull, "recipe": make}.items():
    app.command(name)(at_the_root(command))

if __name__ == "__main__":
    app()
