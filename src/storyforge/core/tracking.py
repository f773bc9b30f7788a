"""Weights & Biases as a second sink of the numbers a run writes anyway; only when the params ask for it."""

import netrc
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from storyforge.core.errors import UserError
from storyforge.core.params import Params

PATIENCE_S = 30  # with a server that does not answer
# Where W&B keeps its runs: what it could not send outlives the stage, and a temporary experiment.
ROOT = Path(os.environ.get("DVC_ROOT", "."))


class TrackingParams(Params):
    section: ClassVar[str] = "tracking"
    wandb: bool


class Track:
    """Where figures go besides the files: to a W&B run, or nowhere."""

    def __init__(self, run: Any = None):
        self.run = run

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        if self.run:
            self.run.log({"step": step, **figures})

    def conclude(self, figures: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> None:
        """What the run came to, and a table of texts whose columns are the keys of `samples`."""
        if self.run:
            import wandb

            self.run.summary.update(figures)
            columns = list(samples[0])
            rows = [[sample[column] for column in columns] for sample in samples]
            self.run.log({"samples": wandb.Table(columns=columns, data=rows)})


@contextmanager
def tracked(
    job: str, config: dict[str, Any], *, key: str | None = None, main: bool = True
) -> Iterator[Track]:
    """A W&B run of that job type; under the same key it goes on where it was left.

    Offline without a key or a network, for `wandb sync` later; UserError on a key that cannot be one. Tagged
    with commit and experiment, by which the jobs of one `dvc repro` are grouped. Memory and GPU use W&B
    samples by itself; neither code, console nor git remote is recorded. Processes other than the main one
    write nothing.
    """
    if not main or not TrackingParams.load().wandb:
        yield Track()
        return
    tags = [tag for tag in (_commit(), os.environ.get("DVC_EXP_NAME")) if tag]
    run = _begun(
        os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline"),
        project="storyforge",
        job_type=job,
        group=tags[-1] if tags else None,
        name=f"{tags[-1][:30]} {job}" if tags else None,
        id=key,
        resume="allow" if key else None,
        tags=tags,
        dir=ROOT,
        config=config,
    )
    run.define_metric("*", step_metric="step")
    try:
        yield Track(run)
    finally:
        run.finish()


def _begun(mode: str, **options: Any) -> Any:
    import wandb  # costs a second and a half, so only where it is wanted

    settings = wandb.Settings(
        console="off", save_code=False, disable_git=True, silent=True, init_timeout=PATIENCE_S
    )
    key = options["id"]
    for number in count(2):
        try:
            return wandb.init(mode=mode, settings=settings, **options)
        except (wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"W&B: {reason}: mend that, or set tracking.wandb: false") from None
        except wandb.errors.CommError as error:
            words = " ".join(str(error).partition("\n")[0].split())  # then comes advice on W&B's settings
        wandb.teardown()  # it still holds the run's name
        if "deleted" not in words or not key:
            break
        options["id"] = f"{key}-{number}"  # a deleted id is never free again
        print(f"W&B: {words}: the run is {options['id']} there", file=sys.stderr)
    print(f"W&B cannot be used ({words}): this run is kept in wandb/, for `wandb sync`", file=sys.stderr)
    return wandb.init(mode="offline", settings=settings, **options)


def _commit() -> str | None:
    """The commit an experiment started from, else the one checked out; None outside git."""
    if given := os.environ.get("DVC_EXP_BASELINE_REV"):
        return given
    try:
        asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    except OSError:
        return None
    return asked.stdout.strip() if asked.returncode == 0 else None


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
