"""Rules of the code: what may import what, and how large a thing may grow.

Here and in the other rules_ files, a rule takes the root folder and yields what is wrong, one line a breach.
"""

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

# A folder is a stage, or what stages share: what may be imported from where, besides itself.
SHARED = {"core"}
MODEL = {"core", "engine", "model"}
SECOND_PHASE = {"revise", "align", "judge"}
STAGES = {"collect", "preprocess", "train", "evaluate", "report", *SECOND_PHASE}
MAY_IMPORT = {
    "core": set(),
    "collect": SHARED,
    "preprocess": {"core", "measures"},
    "report": SHARED,
    "measures": SHARED,
    "engine": SHARED,
    "model": {"core", "engine"},
    "train": MODEL,
    "sampling": MODEL,
    "evaluate": {*MODEL, "sampling", "measures"},
    "export": {*MODEL, "sampling"},
    "judging": SHARED,
    "principles": {"core", "measures"},
    "align": {*MODEL, "sampling", "train", "measures"},
    "revise": {*MODEL, "sampling", "train", "measures", "principles", "judging"},
    "judge": {*MODEL, "sampling", "train", "measures", "principles", "judging"},
}
COMMANDS = {*MAY_IMPORT, "commands"}  # these, the command line and the demo may import everything
TORCH = {"engine", "model", "train", "sampling", "evaluate", "export", *SECOND_PHASE}
HEAVY = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "safetensors.torch")
GROUND = {"filelock", "pydantic", "ruamel", "httpx2", "huggingface_hub", "tqdm", "wandb", "ray", "storyforge"}
GROUND |= {"pyarrow"}
OUTSIDE = {
    "os",
    "io",
    "sys",
    "pathlib",
    "shutil",
    "tempfile",
    "subprocess",
    "socket",
    "logging",
    "tqdm",
    "rich",
}
MAY_TALK = {"stage", "reading", "folder", "documents", "shards"}
TALK = {"open", "print", "input", "read_text", "read_bytes", "write_text", "write_bytes"}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name of every module, packages included, and its file."""
    files = sorted((root / "src").rglob("*.py"))
    dotted = {file: ".".join(file.relative_to(root / "src").with_suffix("").parts) for file in files}
    return {name.removesuffix(".__init__"): file for file, name in dotted.items()}


def imported(file: Path) -> set[str]:
    """Every name a file imports, wherever in it: `from a.b import c` gives a.b.c."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def first_party(file: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports."""
    found = set()
    for name in imported(file):
        while name and name not in known:
            name = name.rpartition(".")[0]
        found |= {name} - {""}
    return found


def closure(module: str, known: dict[str, Path]) -> set[str]:
    """The module and all of ours that importing it imports, packages' docstrings aside."""
    seen: set[str] = set()
    ahead = {module}
    while ahead:
        seen |= ahead
        ahead = {name for each in ahead for name in first_party(known[each], known)} - seen
    return {name for name in seen if known[name].name != "__init__.py"}


def folder(module: str) -> str:
    """ "core" of storyforge.core.files; "" of what stands beside the folders."""
    parts = module.split(".")
    return parts[1] if len(parts) > 2 or parts[-1] in COMMANDS else ""


def directions(root: Path) -> Iterator[str]:
    """A file imports from its own folder and from those its folder may know."""
    known = modules(root)
    for module, file in known.items():
        ours = folder(module)
        allowed = {ours, *MAY_IMPORT.get(ours, COMMANDS)}
        for target in sorted(first_party(file, known) - {"storyforge"}):
            if folder(target) not in allowed:
                yield f"{module} imports {target}: {ours or 'it'} knows {', '.join(sorted(allowed))}"
        if any(name.startswith(".") for name in imported(file)):
            yield f"{module} has a relative import"


def torch_where_models_are(root: Path) -> Iterator[str]:
    for module, file in modules(root).items():
        for name in sorted(imported(file)):
            if folder(module) not in TORCH and any(f"{name}.".startswith(f"{heavy}.") for heavy in HEAVY):
                yield f"{module} imports {name}"


def light_ground(root: Path) -> Iterator[str]:
    for module, file in modules(root).items():
        for name in sorted(imported(file)):
            top = name.split(".")[0]
            if folder(module) == "core" and top not in GROUND | sys.stdlib_module_names:
                yield f"{module} imports {name}"


def pinned(root: Path) -> Iterator[str]:
    """requirements.txt or the file of an extra names what our code imports, any of them what tests do."""
    providers = packages_distributions()
    named = {file.name: pins(file) for file in sorted(root.glob("requirements*.txt"))}
    everything = set().union(*named.values())
    allowed = {"src": everything - named.get("requirements-dev.txt", set()), "tests": everything}
    ours = {file.stem for folder in allowed for file in (root / folder).rglob("*")}
    for folder, pinned in allowed.items():
        for file in sorted((root / folder).rglob("*.py")):
            tops = {name.split(".")[0] for name in imported(file)} - sys.stdlib_module_names - ours
            for top in sorted(tops - {""}):
                if not pinned & set(map(normal, providers.get(top, [top]))):
                    yield f"{file.relative_to(root)} imports {top}: requirements.txt does not name it"


def pins(file: Path) -> set[str]:
    return set(map(normal, file.read_text("utf-8").splitlines())) - {""}


def normal(requirement: str) -> str:
    """The name in a requirement, as pip compares names."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]*", requirement)[0]).lower()


def silent_stages(root: Path) -> Iterator[str]:
    """In a stage's folder stage.py alone opens files and prints; what reads or keeps texts opens files."""
    for module, file in modules(root).items():
        if folder(module) not in {"collect", "preprocess", "evaluate", "report"} or file.stem in MAY_TALK:
            continue
        for name in sorted(imported(file)):
            if name.split(".")[0] in OUTSIDE or re.match(
                r"storyforge\.core\.files\.(read|write|published)", name
            ):
                yield f"{module} imports {name}"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "id", None) or getattr(called, "attr", None)
            if name in TALK:
                yield f"{module}, line {node.lineno}: calls {name}"


def docstring_inits(root: Path) -> Iterator[str]:
    for module, file in modules(root).items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        most = 3 if module == "storyforge" else 1  # there, the one line that Windows gets
        if file.name == "__init__.py" and (len(tree.body) > most or ast.get_docstring(tree) is None):
            yield f"{module}: an __init__ is a docstring, and nothing else"


def sizes(root: Path) -> Iterator[str]:
    for module, file in modules(root).items():
        source = file.read_text(encoding="utf-8")
        if (length := len(source.splitlines())) > 280:
            yield f"{module}: {length} lines, more than 280"
        for node in ast.walk(ast.parse(source)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if (length := node.end_lineno - node.lineno + 1) > 50:
                yield f"{module}.{node.name}: {length} lines, more than 50"
            if (count := len(node.args.posonlyargs + node.args.args)) > 5 and node.name != "main":
                yield f"{module}.{node.name}: {count} positional parameters, more than 5"
