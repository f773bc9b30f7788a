"""When memory runs out, half as many tokens go through the model at once, from the newest checkpoint on.

The batch of a step stays as it is: only the order of summation, and so the last bits, depend on this budget.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

from accelerate.utils.memory import clear_device_cache
from tqdm import tqdm

from storyforge.core.errors import UserError
from storyforge.core.files import write_json
from storyforge.core.launch import first_process, memory_cgroups
from storyforge.train.checkpoints import newest
from storyforge.train.schedule import LoopParams

NOTE = "memory.json"
MOST_KILLS = 2  # for memory, at one checkpoint; then the budget is halved


class Budget:
    """`tokens` at once, noted in the work directory: a resumed run cuts its batches as the one before did.

    A step can run out of memory in two ways. An error is raised: the training loop catches it and calls
    `recover`. Or Linux kills the process with -9: the next process finds that out when it enters. It counts
    a kill only if the note says that a process began and did not end, and if Linux has killed for memory
    since. Other kills may happen as often as they like without a change of bits. Where several processes
    make one run, the first of them keeps the note.
    """

    def __init__(self, work: Path, params: LoopParams, longest: int):
        self.work, self.section, self.longest = work, params.section, longest
        # `kills` for memory at the checkpoint of `step`; `running_since`: what the kernel had counted then.
        self.note = {"micro_batch_tokens": params.micro_batch_tokens}
        self.note |= {"kills": 0, "step": 0, "running_since": None}
        with suppress(OSError, ValueError):  # none yet, or damaged: begin as if there were none
            self.note |= json.loads((work / NOTE).read_bytes())

    @property
    def tokens(self) -> int:
        return self.note["micro_batch_tokens"]

    def __enter__(self) -> "Budget":
        if not first_process():
            return self
        # A killed process cannot say so: it left `running_since` in the note, with the kernel's counts then.
        # The first count that both processes had. After a restart `now` is the smaller one: no kill.
        now, before = _kernel_kills(), self.note["running_since"] or {}
        common = next((name for name in now if name in before), None)
        if common and now[common] > before[common]:
            # One kill may be chance: other programs filled the memory. Two without a checkpoint between them
            # mean that this budget does not fit, and that the run would be killed there for ever.
            # At another checkpoint the run has got on with this budget, and the count begins again.
            checkpoint = newest(self.work)
            step = int(checkpoint.name.removeprefix("step-")) if checkpoint else 0
            kills = self.note["kills"] + 1 if self.note["step"] == step else 1
            self.note |= {"kills": kills, "step": step}
            if kills >= MOST_KILLS:
                self.halve(f"killed for memory {kills} times at step {step}")
        # Set while this process runs: only a kill, which leaves no time for `__exit__`, leaves it standing.
        self.note["running_since"] = now
        write_json(self.work / NOTE, self.note)
        return self

    def __exit__(self, *_) -> None:
        self.note["running_since"] = None
        if first_process():
            with suppress(OSError, UserError):  # on a full disk the reason is reported by who found it
                write_json(self.work / NOTE, self.note)

    def recover(self) -> None:
        """After an error of a step: half the tokens, and the memory that the step held given back."""
        self.halve("out of memory")
        # With several processes it ends here: the note is written, and the next start reads it.
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # the others wait for this one's gradient
            raise UserError("out of memory in one of several processes: run the same command again")
        # Without it the half would meet memory that is full of what the failed step left to the allocator.
        clear_device_cache(garbage_collection=True)

    def halve(self, reason: str) -> None:
        """Half the tokens; UserError where the longest story, or pair of them, goes through alone already."""
        # A micro-batch holds an item at least, so a smaller budget would cut the batches no finer.
        if self.tokens <= self.longest:
            raise UserError(
                f"{reason} with a single story or pair of {self.longest} tokens: set "
                f"{self.section}.gradient_checkpointing: true, lower {self.section}.max_tokens, "
                "or on CUDA set model.quantization: nf4"
            )
        # Halves reach any fit within a factor of two, and machines that halve as often agree in their bits.
        half = self.tokens // 2
        tqdm.write(
            f"{reason} with {self.tokens} tokens at once: going on from the last checkpoint with {half}"
        )
        # Noted at once: should this process be killed next, the one after begins with half all the same.
        self.note |= {"micro_batch_tokens": half, "kills": 0}
        write_json(self.work / NOTE, self.note)


def _kernel_kills(root: Path = Path("/")) -> dict[str, int]:
    """How often Linux has killed for memory: in our own cgroup, and since it was started; {} elsewhere.

    The cgroup's count leaves out what happens in other containers, but a new container begins a new one.
    Cgroups are told apart by their inode, which is not used again.
    """
    # Most telling first: who compares takes the first count that both processes had.
    own = next(memory_cgroups(root), None)
    files = [own / name for name in ("memory.events", "memory.oom_control")] if own else []
    found = {}
    for file in (*files, root / "proc/vmstat"):
        with suppress(OSError):  # of another version, or the top, which counts nothing
            counts = dict(line.split() for line in file.read_text().splitlines())
            if "oom_kill" in counts:
                found[f"{file.name} {file.parent.stat().st_ino}"] = int(counts["oom_kill"])
    return found
