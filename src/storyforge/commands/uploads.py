"""One's own stories through the demo: stored, and what a training would make of them, before it begins."""

import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import storyforge
from storyforge.collect.accounts import Reject, counted
from storyforge.collect.folder import READ
from storyforge.commands.estimate import duration
from storyforge.commands.plan import PUBLISHED
from storyforge.core.errors import UserError
from storyforge.core.files import read_json, read_jsonl, read_yaml
from storyforge.core.params import PARAMS
from storyforge.core.records import Story
from storyforge.core.splits import read_split
from storyforge.core.text import printable
from storyforge.model.params import ModelParams
from storyforge.train.params import TrainParams

FOLDER, RECIPE, PROMPTS = Path("data/my-stories"), Path("recipes/my-stories.yaml"), Path("data/prompts.yaml")
KINDS = sorted(suffix.removeprefix(".") for suffix in READ)
MAX_FILES = 500  # at once
LONGEST_NAME = 200  # bytes
MAX_SECONDS = 600  # of a stage; 400 stories take three
TOKENS_A_WORD = 1.35  # SmolLM2's, of English


def stored(files: Iterable[tuple[str, bytes]], folder: Path = FOLDER) -> list[str]:
    """Put each file under its name into the folder; a line for each that is not, and why.

    A file that is there is never changed: of another text under its name nothing is stored.
    """
    notes = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, (given, data) in enumerate(files):
            name = PurePosixPath(given.replace("\\", "/")).name
            if number == MAX_FILES:
                notes.append(f"more than {MAX_FILES} files at once: the rest was not stored: add it next")
                break
            if trouble := _trouble(name) or (
                "" if _added(folder, name, data) else _taken(folder / name, data)
            ):
                notes.append(f"{printable(name)}: {trouble}")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}: not all was stored there") from None
    return notes


def _trouble(name: str) -> str:
    if PurePosixPath(name).suffix.lower() not in READ:
        return "is of a kind that is not read: save it as .docx, .odt or .txt"
    if name.startswith((".", "~$")) or name != printable(name) or len(name.encode()) > LONGEST_NAME:
        return "has a name that is not stored: rename it"
    return ""


def _added(folder: Path, name: str, data: bytes) -> bool:
    """Whether the file is new: it appears whole, and never in place of another."""
    with TemporaryDirectory(prefix=".", dir=folder) as beside:
        (part := Path(beside, "new")).write_bytes(data)
        try:
            os.link(part, folder / name)
        except FileExistsError:
            return False
    return True


def _taken(path: Path, data: bytes) -> str:
    if path.is_file() and path.read_bytes() == data:
        return ""  # it is there already
    return "another file of that name is there, and stays: rename this one"


def outlook(folder: Path = FOLDER) -> tuple[str, list[str], str]:
    """A line of numbers, what collect and preprocess say of the folder, and the command that trains on it.

    Both run in a folder of their own, by the recipe in use or, where that has other stories, by my-stories'.
    """
    sections = read_yaml(PARAMS)
    collected = sections.get("collect") if isinstance(sections, dict) else None
    recipe = PARAMS if isinstance(collected, dict) and collected.get("folder") else RECIPE
    command = "make repro" if recipe == PARAMS else f"make recipe NAME={RECIPE.stem} && make repro"
    with TemporaryDirectory() as place:
        (work := Path(place)).joinpath(PARAMS.name).write_bytes(recipe.read_bytes())
        said = [*_stage(work, "collect", folder.absolute(), "raw")]
        said += _stage(work, "preprocess", "raw", PROMPTS.absolute(), "processed", "metrics.json")
        files = read_json(work / "raw/collection_report.json")["folder"]["files"]
        found = files["read"] + sum(files["not_read"].values()) + sum(files["left_out"].values())
        refused = {row.file for row in read_jsonl(work / "raw/rejects.jsonl", Reject)}
        refused -= {row.meta["file"] for row in read_jsonl(work / "raw/folder.jsonl", Story)}
        metadata = read_json(work / "processed/metadata.json")
        held_out = sum(metadata["splits"][side]["groups"] for side in ("val", "test"))
        kept = "an end" if "ends_held_out" in metadata else f"{held_out:,} of the works"
        numbers = f"{counted(found, 'file')}, {files['read'] - len(refused):,} read, {kept} held out"
        return f"{numbers}, {_duration(recipe, work / 'processed')}", said, command


def _stage(work: Path, name: str, *paths: str | Path) -> list[str]:
    """The lines that a stage prints; UserError is its own."""
    command = [sys.executable, "-m", f"storyforge.{name}.stage", *map(str, paths), "timing.json"]
    env = os.environ | {"PYTHONPATH": str(Path(storyforge.__file__).parents[1])}
    try:
        done = subprocess.run(
            command, cwd=work, env=env, capture_output=True, text=True, errors="replace", timeout=MAX_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{name} has not ended in {MAX_SECONDS} s: run `dvc repro {name}`") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
        raise UserError(printable(last.removeprefix("error: ").replace(f"{work}/", "")))
    return printable(done.stdout).splitlines()


def _duration(recipe: Path, processed: Path) -> str:
    """Of the training alone, by the rate measured on two cores; steps where no rate is known."""
    params, name = TrainParams.load(recipe), ModelParams.load(recipe).name.rpartition("/")[2]
    lengths = [
        min(params.max_tokens, TOKENS_A_WORD * len(" ".join((row.prompt, row.story)).split()))
        for row in read_split(processed, "train")
    ]
    steps = params.epochs * math.ceil(len(lengths) / params.batch_stories)
    steps = min(steps, params.max_steps or steps)
    said = f"{steps:,} steps at most"
    rate = PUBLISHED.get(("2 CPU cores", "LoRA", name.removesuffix("-Instruct")))
    if rate is None:
        return said
    seconds = steps * params.batch_stories * sum(lengths) / len(lengths) / rate[0]
    return f"{said}, about {duration(seconds)} on two cores with AVX512-BF16"
