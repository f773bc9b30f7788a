"""Who is at work on this machine, as far as /proc tells; nobody where there is none (macOS, Windows)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
ADOPTERS = {"init", "systemd", "tini", "dumb-init", "docker-init", "catatonit"}


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    command: tuple[str, ...]
    folder: Path | None  # its working directory, where we may know it

    @property
    def is_dvc(self) -> bool:
        """`dvc …` or `python …/dvc …`, and `python -m dvc …`."""
        return any(Path(word).name == "dvc" for word in self.command[:3])


def processes() -> dict[int, Process]:
    found = (_process(folder) for folder in PROC.glob("[0-9]*"))
    return {process.pid: process for process in found if process}


def holders(files: set[Path]) -> Iterator[int]:
    """Processes that have one of these files open."""
    wanted = {str(file.resolve()) for file in files}
    for link in PROC.glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) in wanted:
                yield int(link.parts[2])
        except OSError:  # it ended meanwhile, or is somebody else's
            continue


def ancestors(process: Process, everyone: dict[int, Process]) -> Iterator[Process]:
    while process := everyone.get(process.parent):
        yield process


def is_orphan(process: Process, everyone: dict[int, Process]) -> bool:
    """Whoever started it is gone, and no dvc stands above it."""
    above = list(ancestors(process, everyone))
    adopted = not above or above[0].pid == 1 or Path((above[0].command or ("",))[0]).name in ADOPTERS
    return adopted and not any(each.is_dvc for each in above)


def _process(folder: Path) -> Process | None:
    try:
        stat = (folder / "stat").read_text(errors="replace")
        words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    parent = int(stat.rpartition(")")[2].split()[1])
    try:
        where = Path(os.readlink(folder / "cwd"))
    except OSError:
        where = None
    return Process(int(folder.name), parent, tuple(words[:-1]), where)
