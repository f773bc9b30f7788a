"""The command line: parses, and leaves the work and the printing to commands/.

What a command needs is imported in the function that runs it, so that help comes at once.
"""

import secrets
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from storyforge.commands.options import Commands, More, Presets, Tuned, as_page, at_the_root, sampled
from storyforge.core.choice import sample_seed
from storyforge.core.errors import UserError

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    """Read the stories, ask the writers, look after the repository. What makes them is `dvc repro`."""
    context.obj = Path.cwd()  # what a path typed in a talk is relative to
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
@at_the_root
def look(
    stage: Annotated[str, typer.Argument(help="raw, train, val, test or rejected.")] = "train",
    *,
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many.")] = 1,
    source: Annotated[str | None, typer.Option(help="Of this source alone.")] = None,
    reason: Annotated[str | None, typer.Option(help="Rejected by this rule.")] = None,
    id: Annotated[str | None, typer.Option(help="This very one.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="As training sees it, loss in green.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, show_default="random", help="Which ones.")] = None,
) -> None:
    """Read random stories of any stage with source, prompt and length. `look rejected` counts by rule.

    \b
    Examples:
      storyforge look train -n 3
      storyforge look val --tokens --seed 7
      storyforge look rejected
      storyforge look rejected --reason foreign -n 5
    """
    from storyforge.commands import look, terminal

    if stage == "rejected" and not (reason or id or tokens):
        look.files_of(stage)
        return terminal.counts(look.counts())
    seed = secrets.randbelow(10_000) if seed is None else seed
    for story in look.look(stage, count, seed, source=source, reason=reason, id=id):
        terminal.story(story, look.tokens(story) if tokens else None)
    terminal.aside(f"seed {seed}")


@app.command()
@at_the_root
@sampled
def sample(
    prompt: Annotated[str | None, typer.Argument(help="What the story is about.")] = None,
    *,
    preset: Presets = None,
    adapter: Tuned = None,
    base: Annotated[bool, typer.Option("--base", help="Let the base write.")] = False,
    **sampling,
) -> None:
    """Let a writer answer one prompt and read along: the quick test. Only the story goes to stdout.

    \b
    Examples:
      storyforge sample "A lighthouse keeper hears a knock from the sea."
      storyforge sample --preset horror --temperature 1.1 --seed 5 > horror.txt
    """
    from storyforge.commands import terminal, writers

    if (prompt is None) == (len(preset or []) != 1):
        raise UserError('one prompt is needed: storyforge sample "what it is about", or --preset mystery')
    asked, *_ = writers.asked([] if prompt is None else [prompt], preset or [])  # a kind may have several
    adapters = {} if base else writers.named(adapter)
    with terminal.waiting("loading the model"):
        params, ready = writers.sampling(sampling), writers.Writers(adapters)
    ids, chance = ready.encoder.prompt(asked.prompt), sample_seed(asked.id, 0, params.seed)
    with closing(ready.stream(ready.names[-1], ids, params, chance)) as stream:
        for piece in stream:
            terminal.say(piece.text, end="")
    terminal.say("")
    terminal.aside(f"{ready.names[-1]}: {piece.end}; seed {params.seed}, temperature {params.temperature}")


@app.command()
@at_the_root
@sampled
def compare(
    prompts: Annotated[
        list[str] | None, typer.Argument(help="What to write about.", show_default="data/prompts.yaml")
    ] = None,
    *,
    preset: Presets = None,
    tuned: Tuned = None,
    more: More = None,
    markdown: Annotated[Path | None, typer.Option(resolve_path=True, help="Write a page instead.")] = None,
    **sampling,
) -> None:
    """Base and tuned side by side, and other adapters beside them: same prompts, seeds and settings for all.

    \b
    Examples:
      storyforge compare
      storyforge compare "A wedding in a snowed-in station." --length 120
      storyforge compare --preset romance --adapter models/older --markdown romance.md
    """
    from storyforge.commands import compare, terminal, writers
    from storyforge.core.files import published

    asked = writers.asked(prompts or [], preset or [])
    adapters = writers.named(tuned, more or [])
    with terminal.waiting("loading the model"):
        params, ready = writers.sampling(sampling), writers.Writers(adapters)
    answers = compare.compare(ready, asked, params)
    if markdown is None:
        return terminal.answers(answers)
    with published(markdown) as file:
        file.write(compare.markdown(answers, params).encode())
    terminal.aside(f"{len(asked)} prompts, {len(adapters) + 1} writers: {markdown}")


@app.command()
@at_the_root
@sampled
def chat(
    context: typer.Context,
    *,
    writer: Annotated[
        str, typer.Option(help="Who begins: base, tuned, or the name of another adapter's folder.")
    ] = "tuned",
    tuned: Tuned = None,
    more: More = None,
    **sampling,
) -> None:
    """Talk with the writers; they remember what was said. /help lists what can be changed meanwhile.

    \b
    Example:
      storyforge chat --temperature 0.9
    """
    from storyforge.commands import chat, terminal, writers

    adapters = writers.named(tuned, more or [])
    if writer not in (writers.BASE, *adapters):
        raise UserError(f"--writer {writer}: choose one of {', '.join((writers.BASE, *adapters))}")
    with terminal.waiting("loading the model"):
        params, ready = writers.sampling(sampling), writers.Writers(adapters)
    talk = chat.Talk(ready, writer, params, home=context.find_root().obj)
    terminal.aside("/help for help, /quit or Ctrl-D to end")
    terminal.converse(talk)


@app.command()
@at_the_root
def estimate(
    *,
    price_per_hour: Annotated[float | None, typer.Option(min=0, help="Of this machine.")] = None,
    steps: Annotated[int, typer.Option(min=2, help="How many to try.")] = 8,
    json: Annotated[bool, typer.Option("--json", help="For programs: seconds and bytes.")] = False,
) -> None:
    """Tell time, memory, disk and cost of training, from a few real steps; and time on common hardware.

    \b
    Example:
      storyforge estimate --price-per-hour 1.20
    """
    from storyforge.commands import estimate, terminal

    with terminal.waiting("trying a few steps"):
        found = estimate.estimate(steps, price_per_hour)
    terminal.as_json(estimate.as_dict(found)) if json else terminal.estimated(found)


@app.command()
@at_the_root
def export(
    *,
    adapter: Tuned = None,
    to: Annotated[Path | None, typer.Option(resolve_path=True, show_default="exports/NAME")] = None,
    type: Annotated[str, typer.Option(help="Of the GGUF file: f16, q8_0 or none.")] = "f16",
    stories: Annotated[int, typer.Option(min=1, help="Test stories to measure on.")] = 24,
    tolerance: Annotated[float, typer.Option(min=0, help="Most nats a token it may lose.")] = 0.02,
) -> None:
    """Merge the tuned writer into 16-bit weights, and write a GGUF file with its Modelfile; measure both.

    merged/ is for transformers and vLLM, gguf/ for llama.cpp and Ollama. Refused where they are worse.

    \b
    Examples:
      storyforge export
      storyforge export --type q8_0 --to exports/small
    """
    from storyforge.commands import export, terminal

    task = export.task(adapter, to, type, stories=stories, tolerance=tolerance)
    for line in export.lines(export.export(task)):
        terminal.say(line)


@app.command()
@at_the_root
def verify() -> None:
    """Hash every output and every cached file again, and compare with dvc.lock. Status 1 if any is wrong.

    DVC itself does not notice a cached file that has changed on the disk.

    \b
    Example:
      storyforge verify && dvc push
    """
    from storyforge.commands import verify

    if not verify.run():
        raise typer.Exit(1)


@app.command()
@at_the_root
def doctor(
    *,
    fix: Annotated[bool, typer.Option("--fix", help="Mend without asking.")] = False,
) -> None:
    """Find what ails this clone and this machine, and mend what can be mended, asking first.

    Leftovers of killed runs, broken lock files, params changed since the last run, packages other than
    the pinned ones, a missing GPU or token, a full disk, data that is in no remote. Status 1 if anything
    stays wrong.

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
    typer.echo(as_page(typer.main.get_command(app)), nl=False)


if __name__ == "__main__":
    app()
