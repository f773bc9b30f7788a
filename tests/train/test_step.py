"""Pairs over two processes: each pair stays whole, and the step is that of one process."""

import pytest
import torch

SCRIPT = """
import sys
from functools import partial
import tiny
import torch
from accelerate import Accelerator
from storyforge.model.encoding import Encoded
from storyforge.model.loading import attach
from storyforge.model.objectives import dpo
from storyforge.model.params import LoraParams
from storyforge.train.step import gradients, losses

accelerator = Accelerator(cpu=True, mixed_precision="no")
torch.manual_seed(0)
lora = LoraParams(r=4, alpha=8, dropout=0.0, targets="all-linear")
model = attach(tiny.llama(300, initializer_range=0.1).requires_grad_(False), lora, seed=1)
torch.manual_seed(2)
for name, weight in model.named_parameters():
    if "lora_B" in name:
        weight.data.normal_(std=0.05)

def row(pair, length, seed):
    drawn = torch.randint(0, 300, (length,), generator=torch.Generator().manual_seed(seed))
    return Encoded(f"p{pair}", "made", "g", tuple(drawn.tolist()), 5, 1, False)

pairs = [(row(n, 20 + 5 * n, n), row(n, 22 + 3 * n, 100 + n)) for n in range(5)]
nlls = losses(model, pairs, 80, accelerator)
reference = {pair[0].id: (nlls[2 * n] - n - 1, nlls[2 * n + 1] + n / 2) for n, pair in enumerate(pairs)}
figures = gradients(model, pairs, partial(dpo, beta=0.1, nll=0.2), 80, accelerator, reference=reference)
gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.requires_grad])
if accelerator.is_main_process:
    torch.save((nlls, figures, gradient), sys.argv[1])
"""


def test_two_processes_weigh_pairs_as_one_does(warm, tmp_path):
    script, found = tmp_path / "script.py", []
    script.write_text(SCRIPT)
    for processes in (1, 2):
        out = tmp_path / f"{processes}.pt"
        assert set(warm.run(script, str(out), processes=processes)) == {0}, (tmp_path / "log").read_text()
        found.append(torch.load(out, weights_only=True))
    (nlls, figures, gradient), (nlls_2, figures_2, gradient_2) = found
    assert nlls_2 == pytest.approx(nlls, rel=1e-6)
    assert list(figures_2) == list(figures) and figures_2 == pytest.approx(figures, rel=1e-5)
    assert (gradient_2 - gradient).norm() < 1e-5 * gradient.norm()
