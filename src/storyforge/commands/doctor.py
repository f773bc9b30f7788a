"""What ails a clone: one finding a check, each with the command that mends it."""

import subprocess
import time
from collections.abc import Callable, Iterator
from shlex import join

from storyforge.commands import doctor_machine as machine
from storyforge.commands import doctor_repository as repository
from storyforge.commands.findings import Finding
from storyforge.commands.repository import run
from storyforge.core.errors import UserError

Check = Callable[[], Finding]
PATIENCE_S = 10

CHECKS: dict[str, Check] = {  # in the order in which mending one helps the next
    "processes": machine.orphans,
    "rwlock": repository.rwlock,
    "dvc.lock": repository.lock,
    "branch": repository.branch,
    "experiments": repository.experiments,
    "params": repository.params,
    "packages": machine.packages,
    "device": machine.device,
    "hub": machine.hub,
    "disk": machine.disk,
    "remote": repository.remote,
}


def examined(wanted: Callable[[Finding], bool]) -> Iterator[tuple[str, Finding]]:
    """Each check's name and finding; what can be mended is, where `wanted` says so, and is checked again."""
    for name, check in CHECKS.items():
        finding = outcome(check)
        yield name, finding
        if finding.mend and not finding.by_hand and wanted(finding):
            yield name, mended(finding, check)


def outcome(check: Check) -> Finding:
    """The check's finding; what keeps it from finding anything is one too."""
    try:
        return check()
    except UserError as error:
        return Finding("wrong", str(error))


def mended(finding: Finding, check: Check) -> Finding:
    """What the check says once the commands have run: a process takes its time to end."""
    for command in finding.mend:
        if status := run(*command, stdin=subprocess.DEVNULL).returncode:
            return Finding("wrong", f"`{join(command)}` has failed with status {status}")
    for _ in range(PATIENCE_S):
        finding = outcome(check)
        if not finding.mend or finding.by_hand:
            break
        time.sleep(1)
    return finding
