"""Rules of the graph: dvc.yaml declares what the stages import and read, name and take."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from rules_code import closure, modules

START = "exec env PYTHONPATH=src python -m"  # its own code; and the child of DVC itself

CODE = "src/storyforge/"


def graph(root: Path) -> dict[str, dict[str, Any]]:
    return YAML(typ="safe").load(root / "dvc.yaml")["stages"]


def declared(stage: dict[str, Any], *kinds: str) -> set[str]:
    entries = [entry for kind in kinds for entry in stage.get(kind, [])]
    return {name for entry in entries for name in (entry if isinstance(entry, dict) else [entry])}


def code_of(stage: dict[str, Any], known: dict[str, Path]) -> set[Path]:
    """The files a stage's module imports, its own among them."""
    module = stage["cmd"].removeprefix(START).split()[0]
    return {known[name] for name in closure(module, known)} if module in known else set()


def sections(file: Path) -> set[str]:
    """The sections of params.yaml that a file's `Params` subclasses read."""
    classes = [
        node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.ClassDef)
    ]
    ours = [node for node in classes if "Params" in {getattr(base, "id", None) for base in node.bases}]
    lines = [line for node in ours for line in node.body if isinstance(line, ast.Assign | ast.AnnAssign)]
    return {
        line.value.value
        for line in lines
        if getattr(line.targets[0] if isinstance(line, ast.Assign) else line.target, "id", None) == "section"
    }


def code_deps(root: Path) -> Iterator[str]:
    """A stage declares the folders its code imports from, whole: what lies in them may decide its result."""
    known = modules(root)
    for name, stage in graph(root).items():
        needed = {file.parent.relative_to(root).as_posix() for file in code_of(stage, known)}
        code = {dep for dep in declared(stage, "deps") if dep.startswith(CODE)}
        yield from differences(f"dvc.yaml: {name}: deps", needed, code)


def read_params(root: Path) -> Iterator[str]:
    """The params a stage declares are the sections its code reads, and no section is read by nobody."""
    known = modules(root)
    for name, stage in graph(root).items():
        read = set().union(*map(sections, code_of(stage, known)))
        yield from differences(f"dvc.yaml: {name}: params", read, declared(stage, "params"))
    read = set().union(*map(sections, known.values()))
    yield from differences("params.yaml", read, set(YAML(typ="safe").load(root / "params.yaml")))


def commands(root: Path) -> Iterator[str]:
    """A command names the data it declares, in as many paths as main() takes, its timing file last."""
    known = modules(root)
    for name, stage in graph(root).items():
        module, *paths, timing = stage["cmd"].removeprefix(START).split()
        data = {dep for dep in declared(stage, "deps") if not dep.startswith(CODE)}
        data |= declared(stage, "outs", "metrics", "plots")
        yield from differences(f"dvc.yaml: {name}: cmd", data, set(paths))
        if not stage["cmd"].startswith(f"{START} storyforge.{name}.stage "):
            yield f"dvc.yaml: {name}: cmd does not begin with {START} storyforge.{name}.stage"
        if timing != f"metrics/timing/{name}.json":
            yield f"dvc.yaml: {name}: cmd ends with {timing}, not with metrics/timing/{name}.json"
        if module not in known:
            yield f"dvc.yaml: {name}: {module} does not exist"
        elif (taken := parameters_of_main(known[module])) != len(paths):
            yield f"dvc.yaml: {name}: cmd gives {len(paths)} paths, main() takes {taken}"


def parameters_of_main(file: Path) -> int | None:
    body = ast.parse(file.read_text(encoding="utf-8")).body
    return next((len(n.args.args) for n in body if isinstance(n, ast.FunctionDef) and n.name == "main"), None)


def differences(where: str, wanted: set[str], found: set[str]) -> Iterator[str]:
    yield from (f"{where}: {name} is missing" for name in sorted(wanted - found))
    yield from (f"{where}: {name} is not used" for name in sorted(found - wanted))


def keys(tree: Any, prefix: str = "") -> set[str]:
    """Dotted keys of nested mappings, leaves and branches."""
    if not isinstance(tree, dict):
        return set()
    return {f"{prefix}{key}" for key in tree}.union(
        *(keys(value, f"{prefix}{key}.") for key, value in tree.items())
    )


def same_keys(root: Path) -> Iterator[str]:
    """Recipes have the keys of params.yaml; each lists profiles and held-out groups of its own sources."""
    wanted, _ = _by_source(YAML(typ="safe").load(root / "params.yaml"))
    for file in (root / "params.yaml", *sorted((root / "recipes").glob("*.yaml"))):
        name = file.relative_to(root).as_posix()
        found, sources = _by_source(params := YAML(typ="safe").load(file))
        yield from differences(name, wanted, found)
        preprocess = params.get("preprocess", {})
        yield from differences(f"{name}: profiles", sources, set(preprocess.get("profiles", {})))
        listed = set(preprocess.get("split", {}).get("held_out", {}))
        yield from differences(f"{name}: held_out", sources & listed, listed)


def _by_source(params: dict[str, Any]) -> tuple[set[str], set[str]]:
    """The keys that every run has, and the sources that this one collects."""
    sources = {name for name, value in params.get("collect", {}).items() if isinstance(value, dict)}
    # An objective's keys depend on its kind; that they are right ones is tested with each section.
    varying = ("preprocess.profiles", "preprocess.split.held_out", "align.objective")
    varying += tuple(f"collect.{name}" for name in sources)
    return {key for key in keys(params) if not f"{key}.".startswith(tuple(f"{n}." for n in varying))}, sources
