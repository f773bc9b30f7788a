"""How a stage starts and ends: paths in, one clear line for a user's mistake, volatile figures kept apart."""

import json
import logging
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

# On import it reports that it found no optional kernel, to people who never asked for 4 bits.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


class UserError(Exception):
    """A mistake outside the code: its one line names the file, line or key, and the remedy."""


def launch(main: Callable[..., dict[str, Any] | None]) -> None:
    """Run `main` on the paths of the command line; the last one receives the figures that vary between runs.

    Seconds, peak memory and whatever `main` returns go there, so that they never touch a stage's outputs.
    A UserError ends the process with one line on stderr and status 1.
    """
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to each other, not to our user
    *paths, timing = map(Path, sys.argv[1:])
    start = time.perf_counter()
    try:
        figures = main(*paths) or {}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures |= {"seconds": round(time.perf_counter() - start, 1), "peak_memory_mib": peak // 1024}
    timing.parent.mkdir(parents=True, exist_ok=True)
    timing.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n", encoding="utf-8")
