import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file

from storyforge.core.errors import UserError
from storyforge.core.files import write_jsonl
from storyforge.train import loop
from storyforge.train.sharding import own_part, shard

CONFIG = Path(__file__).parents[2] / "recipes/launch/fsdp2.yaml"
SOURCE = str(Path(loop.__file__).parents[2])
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]

SCRIPT = """
import sys
sys.path.insert(0, {source!r})
from pathlib import Path
import torch
from accelerate import Accelerator
from torch.distributed.tensor import DTensor
from storyforge.model.loading import LoraParams, ModelParams, attach, load_base, load_encoder
from storyforge.model.encoding import singly
from storyforge.train.schedule import LoopParams, batches
from storyforge.train.loop import train
from storyforge.core.records import Exchange
from storyforge.core.files import read_jsonl
folder = Path({folder!r})
accelerator = Accelerator(cpu=True, mixed_precision="no")
model_params = ModelParams.model_validate_json((folder / "model.json").read_text())
encoder = load_encoder(model_params)
rows = [encoder.exchange(e, 200) for e in read_jsonl(folder / "rows.jsonl", Exchange)]
lora = LoraParams.model_validate_json((folder / "lora.json").read_text())
params = LoopParams.model_validate_json((folder / "loop.json").read_text())
plan = [singly(step) for step in batches(rows[2:], params)]
model = attach(load_base(model_params), lora, seed=1)
model.activation_checkpointing_enable({{"use_reentrant": False}})
model.enable_input_require_grads()
run = train(model, plan, singly(rows[:2]), model_params, params, work=folder, log=lambda *_: None)
if accelerator.is_main_process:
    cut = [name for name, weight in model.named_parameters() if isinstance(weight, DTensor)]
    curves = {{"train": run.state.train, "val": run.state.val}}
    torch.save({{"best": run.best, "cut": cut, **curves}}, folder / "out.pt")
"""


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_base_spread_over_two_processes_trains_as_a_whole_one(
    quantization, warm, model_params, lora, loop_params, exchanges, tmp_path
):
    """Two processes on CPU (gloo), with checkpointed activations and a step of three micro-batches.

    The warm ones have no bitsandbytes, so that torchrun starts those that need it.
    """
    model_params = model_params.model_copy(update={"quantization": quantization})
    loop_params = loop_params.model_copy(update={"micro_batch_tokens": 1})
    found = []
    for processes, settings in ((1, {}), (2, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"})):
        folder = tmp_path / f"{processes}"
        folder.mkdir()
        for name, params in {"model": model_params, "loop": loop_params, "lora": lora}.items():
            (folder / f"{name}.json").write_text(params.model_dump_json())
        write_jsonl(folder / "rows.jsonl", exchanges)
        (folder / "script.py").write_text(SCRIPT.format(source=SOURCE, folder=str(folder)))
        settings |= {"OMP_NUM_THREADS": "1", "STORYFORGE_ALLOW_CPU": "1"}
        if quantization == "none":
            statuses = warm.run(folder / "script.py", processes=processes, **settings)
            assert set(statuses) == {0}, (folder / "log").read_text()
        else:
            command = [sys.executable, *(TORCHRUN if processes > 1 else []), folder / "script.py"]
            subprocess.run(command, check=True, timeout=120, env=os.environ | settings, capture_output=True)
        found.append(torch.load(folder / "out.pt", weights_only=True))
    alone, spread = found
    assert (
        alone["cut"] == [] and len(spread["cut"]) == 2 * 9 + 1
    )  # seven products, two norms a layer; the last
    assert not any("lora" in name or "embed" in name for name in spread["cut"])
    for curve in ("train", "val"):
        for one, other in zip(alone[curve], spread[curve], strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert alone["val"][-1]["loss"] < alone["val"][0]["loss"]
    for name, weight in alone["best"].items():
        torch.testing.assert_close(spread["best"][name], weight, rtol=2e-2, atol=2e-4)


def test_sharded_processes_make_as_many_passes_and_count_each_micro_batch_once(monkeypatch):
    def parts(processes):
        of = [SimpleNamespace(num_processes=processes, process_index=index) for index in range(processes)]
        return [list(own_part("abcde", process)) for process in of]

    assert parts(2) == [[("a", 1.0), ("c", 1.0), ("e", 1.0)], [("b", 1.0), ("d", 1.0)]]
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert parts(2) == [[("a", 1.0), ("c", 1.0), ("e", 1.0)], [("b", 1.0), ("d", 1.0), ("e", 0.0)]]
    assert parts(1) == [[(cut, 1.0) for cut in "abcde"]]


def test_fp16_cannot_be_sharded(tuned, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="fp16"):
        shard(tuned, SimpleNamespace(scaler=torch.amp.GradScaler("cpu")))


def test_the_launch_file_is_one_that_accelerate_reads():
    config = load_config_from_file(str(CONFIG))
    assert (str(config.distributed_type.value), config.fsdp_config["fsdp_version"]) == ("FSDP", 2)
    assert config.fsdp_config["fsdp_cpu_ram_efficient_loading"] is False
