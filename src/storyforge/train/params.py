"""What params.yaml says of plain training; importing this loads no torch."""

from typing import ClassVar

from storyforge.core.params import Params
from storyforge.model.params import LoraParams
from storyforge.train.schedule import LoopParams


class TrainParams(LoopParams, Params):
    section: ClassVar[str] = "train"
    lora: LoraParams
    same_bits: bool = True  # False: a run may go on with another number of processes, which rounds otherwise
