"""What `dvc repro train` will take here, before it is begun, and what it would take elsewhere."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from storyforge.commands.hardware import Forecast, Rate, forecasts
from storyforge.core.errors import UserError
from storyforge.core.files import read_jsonl
from storyforge.core.records import Exchange

if TYPE_CHECKING:
    from storyforge.model.encoding import Encoded
    from storyforge.train.rehearsal import Costs
    from storyforge.train.schedule import TrainParams

PROCESSED = Path("data/processed")
FORWARD = 0.5  # of a token's training is its way forward


@dataclass(frozen=True, slots=True)
class Job:
    """What `train` has to do, in tokens as the model counts them."""

    epochs: int
    steps: int
    stories_a_step: int
    tokens_a_step: float  # mean
    tokens_an_epoch: int
    tokens: int  # trained on in all
    validations: int
    validation_tokens: int  # of all of them


@dataclass(frozen=True, slots=True)
class Seconds:
    startup: float
    training: float
    validation: float
    checkpoints: float

    @property
    def total(self) -> float:
        return self.startup + self.training + self.validation + self.checkpoints


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes."""

    adapter: int
    checkpoints: int  # while it trains
    base: int


@dataclass(frozen=True, slots=True)
class Estimate:
    job: Job
    costs: "Costs"
    seconds: Seconds
    disk: Disk
    price_per_hour: float | None
    hardware: list[Forecast]  # this machine first

    @property
    def price(self) -> float | None:
        return None if self.price_per_hour is None else self.price_per_hour * self.seconds.total / 3600


def estimate(steps: int, price_per_hour: float | None = None) -> Estimate:
    """From `steps` real steps on this machine; nothing of them is kept."""
    begin = time.perf_counter()
    splits = {side: _read(side) for side in ("train", "val")}
    from storyforge.model.loading import ModelParams, load_encoder
    from storyforge.train.checkpoints import KEPT
    from storyforge.train.rehearsal import rehearse
    from storyforge.train.schedule import TrainParams, validated

    model_params, params = ModelParams.load(), TrainParams.load()
    encoder = load_encoder(model_params)
    train, val = ([encoder.exchange(row, params.max_tokens) for row in rows] for rows in splits.values())
    val = validated(val, params)
    job, read_s = job_of(train, val, params), time.perf_counter() - begin
    costs = rehearse(train, val, model_params, params, steps=steps)
    seconds = Seconds(
        startup=read_s + costs.startup_s,
        training=job.tokens * costs.token_s,
        validation=job.validation_tokens * costs.validation_token_s,
        checkpoints=job.steps // params.checkpoint_every * costs.checkpoint_s,
    )
    quantized = model_params.quantization == "nf4"
    rate = Rate(1 / costs.token_s, "measured", f"here, {date.today()}")
    here = Forecast("this one", None, "QLoRA" if quantized else "LoRA", rate, seconds.total / 3600, False)
    work = job.tokens + FORWARD * job.validation_tokens
    return Estimate(
        job,
        costs,
        seconds,
        Disk(costs.adapter_bytes, (KEPT + 1) * costs.checkpoint_bytes, costs.base_bytes),
        price_per_hour,
        [here, *forecasts(costs.multiplied_parameters, work, quantized)],
    )


def job_of(train: "Sequence[Encoded]", val: "Sequence[Encoded]", params: "TrainParams") -> Job:
    """All of it, as if patience never ended a run."""
    from storyforge.train.schedule import batches

    lengths = [sum(len(row.ids) for row in rows) for rows in batches(train, params)]
    steps = len(lengths)
    validations = 1 + steps // params.validate_every + (steps % params.validate_every > 0)
    return Job(
        epochs=params.epochs,
        steps=steps,
        stories_a_step=params.batch_stories,
        tokens_a_step=sum(lengths) / steps,
        tokens_an_epoch=sum(len(row.ids) for row in train),
        tokens=sum(lengths),
        validations=validations if val else 0,
        validation_tokens=validations * sum(len(row.ids) for row in val),
    )


def as_dict(found: Estimate) -> dict:
    """For programs: seconds and bytes."""
    plain = asdict(found)
    plain["seconds"]["total"] = found.seconds.total
    return plain | {"price": found.price}


def _read(side: str) -> list[Exchange]:
    path = PROCESSED / f"{side}.jsonl"
    if not path.exists():
        raise UserError(f"{path}: no stories there yet: run `dvc repro preprocess` or `dvc pull`")
    rows = list(read_jsonl(path, Exchange))
    if side == "train" and not rows:
        raise UserError(f"{path} is empty: metadata.json beside it says what was dropped and why")
    return rows
