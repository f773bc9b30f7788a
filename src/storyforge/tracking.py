"""Weights & Biases as a second sink of the numbers a run writes anyway; only when the params ask for it."""

import netrc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Log = Callable[[int, dict[str, float]], None]


@contextmanager
def tracked(enabled: bool, key: str, directory: Path, config: dict[str, Any]) -> Iterator[Log]:
    """Yields `log(step, figures)`; a run resumed under the same key continues the same W&B run.

    Offline unless a key is at hand, for `wandb sync` later. Neither code, console nor git remote is recorded.
    """
    if not enabled:
        yield _ignore
        return
    import wandb  # costs a second and a half, so only where it is wanted

    run = wandb.init(
        project="storyforge",
        id=key,
        resume="allow",
        name=os.environ.get("DVC_EXP_NAME"),
        tags=[tag for tag in (os.environ.get("DVC_EXP_BASELINE_REV"), os.environ.get("DVC_STAGE")) if tag],
        dir=directory,
        config=config,
        mode=os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline"),
        settings=wandb.Settings(console="off", save_code=False, disable_git=True, silent=True),
    )
    run.define_metric("*", step_metric="step")
    try:
        yield lambda step, figures: run.log({"step": step, **figures})
    finally:
        run.finish()


def _ignore(step: int, figures: dict[str, float]) -> None:
    pass


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
