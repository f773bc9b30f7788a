"""A Llama of two layers and a byte tokenizer: everything the real model has, in a fraction of a second.

torch is imported inside the fixtures, so that tests without a model start at once (`make quick`).
"""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from hypothesis import settings
from warm import FIGURES, Warm

from storyforge.core import before_torch as before_torch

settings.register_profile("any machine", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("any machine")

pytest_plugins = ["pipeline", "schedule", "wandb_runs"]


def pytest_configure() -> None:
    """A worker of `pytest -n` computes on one thread (torch is not loaded yet); SIGINT is not ignored.

    It is ignored under `nohup` and after `&` in a script, and every child process would inherit that.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session) -> None:
    """A worker hands over what its fault tests found."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = FIGURES


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node) -> None:
    FIGURES.extend(getattr(node, "workeroutput", {}).get("figures", []))


def pytest_terminal_summary(terminalreporter) -> None:
    for line in FIGURES:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory):
    """What `model.origin: folder:…` needs: weights, configuration and tokenizer, the same in every run."""
    import torch

    from storyforge.model.chat import FORMATS

    folder = tmp_path_factory.mktemp("tiny-llama")
    # As in SmolLM2, padding is the end-of-turn token: a mask made from token ids would lose the end.
    fast = tiny.tokenizer(FORMATS.values(), eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    model = tiny.llama(
        len(fast),
        tie_word_embeddings=True,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """The package, in a place where a test may edit it."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(Path(__file__).parents[1] / "src" / "storyforge", folder / "storyforge")
    return folder


@pytest.fixture(scope="session")
def warm(source):
    warm = Warm.up(source)
    yield warm
    warm.server.stdin.close()
    warm.server.wait()


@pytest.fixture
def model_params(tiny_model_dir):
    from storyforge.core.assets import Origin
    from storyforge.model.loading import ModelParams

    return ModelParams(
        name="tests/tiny-llama",
        origin=Origin.parse(f"folder:{tiny_model_dir}"),
        sha256=None,
        chat="smollm2",
        system="Tell a story.",
        precision="fp32",
        quantization="none",
        attention="eager",
        threads=1,
    )


@pytest.fixture
def encoder(model_params):
    from storyforge.model.loading import load_encoder

    return load_encoder(model_params)


@pytest.fixture
def base(model_params):
    from storyforge.model.loading import load_base

    return load_base(model_params)


@pytest.fixture
def lora():
    from storyforge.model.loading import LoraParams

    return LoraParams(r=4, alpha=8, dropout=0.0, targets="all-linear")


@pytest.fixture
def tuned(base, lora):
    """Base and an adapter that says something: LoRA's B starts at zero, so a fresh one would be silent."""
    import torch

    from storyforge.model.loading import attach

    model = attach(base, lora, seed=1)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05)
    return model


@pytest.fixture
def loop_params():
    from storyforge.train.schedule import LoopParams

    return LoopParams(
        seed=3,
        epochs=2,
        max_steps=None,
        batch_stories=3,
        max_tokens=200,
        micro_batch_tokens=300,
        learning_rate=1e-2,
        schedule="cosine",
        warmup_share=0.1,
        weight_decay=0.0,
        max_gradient_norm=1.0,
        gradient_checkpointing=False,
        validate_every=2,
        validation_stories=None,
        patience=None,
        checkpoint_every=1,
    )


@pytest.fixture
def exchanges():
    """Nine short stories of different lengths, three groups."""
    from storyforge.core.records import Exchange

    return [
        Exchange(
            id=f"story-{n}",
            source="made",
            group=f"group-{n % 3}",
            prompt=f"Tell of {n} birds.",
            story="\n".join(f"Bird {k} sang of rain number {n}." for k in range(n % 4 + 1)),
            ended=n % 2 == 0,
        )
        for n in range(9)
    ]


@pytest.fixture
def encoded(encoder, exchanges):
    return [encoder.exchange(exchange, max_tokens=200) for exchange in exchanges]


@pytest.fixture
def remarking(monkeypatch):
    """Gives the encoder that a stage loads a remark on its chat format."""

    def patch(stage) -> None:
        real = stage.load_encoder

        def load(params):
            encoder = real(params)
            encoder.chat = replace(encoder.chat, remarks=("thinking is off",))
            return encoder

        monkeypatch.setattr(stage, "load_encoder", load)

    return patch
