"""Rules of what the files say: nothing of one machine, no secret, no tree but the real one."""

import re
import subprocess
from collections.abc import Iterable, Iterator
from configparser import ConfigParser
from pathlib import Path

from rules_code import modules
from rules_graph import declared, graph

HOSTS = {"127.0.0.1", "localhost", "www.apache.org", "huggingface.co", "arxiv.org", "github.com", "dvc.org"}
HOSTS |= {"pandoc.org", "creativecommons.org", "api.anthropic.com"}
MACHINE_PATH = re.compile(r"(?<![\w.:~$}/-])/(?:work|root|home|Users|opt|tmp)/\w\S*")
SECRET = re.compile(r"password|secret|token|credential|access_key|account_key|^user$")


def repository_files(root: Path) -> list[Path]:
    """Files in git, and those that would be with `git add .`."""
    listing = subprocess.check_output(["git", "ls-files", "-coz", "--exclude-standard"], cwd=root, text=True)
    return [file for name in sorted(filter(None, listing.split("\0"))) if (file := root / name).is_file()]


def strangers(root: Path) -> Iterator[str]:
    """Hosts and paths that only some machines have."""
    for file in repository_files(root):
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        hosts = set(re.findall(r"https?://([\w-]+(?:\.[\w-]+)*)", text)) - HOSTS
        hosts = {host for host in hosts if not host.endswith(".example")}  # reserved for examples
        paths = set(MACHINE_PATH.findall(text))
        yield from (f"{file.relative_to(root)}: {word}" for word in sorted(hosts | paths))


def secrets(root: Path) -> Iterator[str]:
    """.dvc/config is in git: what only one person may know belongs in .dvc/config.local."""
    config = ConfigParser()
    config.read(root / ".dvc" / "config")
    for section in config.sections():
        for key, value in config[section].items():
            if SECRET.search(key) or re.search(r"://[^/@]+@", value) or Path(value).is_absolute():
                yield f".dvc/config: {section}: {key}"


def drawn_tree(root: Path) -> Iterator[str]:
    """What the tree of CONTRIBUTING.md shows exists, and of the code it shows every folder."""
    page = root / "CONTRIBUTING.md"
    shown = set(drawn(page.read_text(encoding="utf-8"))) if page.exists() else set()
    outs = set().union(*(declared(stage, "outs", "metrics", "plots") for stage in graph(root).values()))
    made = outs | {parent.as_posix() for out in outs for parent in Path(out).parents}
    yield from (
        f"{page.name}: {path} does not exist" for path in sorted(shown - made) if not (root / path).exists()
    )
    folders = {file.parent for file in modules(root).values()} - {root / "src" / "storyforge"}
    code = {folder.relative_to(root).as_posix() for folder in folders}
    if shown & code:
        yield from (f"{page.name}: {path} is missing" for path in sorted(code - shown))


def drawn(text: str) -> Iterable[str]:
    """The paths of a drawn tree; two names on a line are siblings."""
    branch: list[str] = []
    for indent, rest in re.findall(r"^([│ ]*)[├└]── (.*)$", text, re.MULTILINE):
        names = [name.strip("/,·") for name in re.split(r"\s{2,}", rest)[0].split()]
        branch[len(indent) // 4 :] = names[:1]
        yield from ("/".join([*branch[:-1], name]) for name in names if name)
