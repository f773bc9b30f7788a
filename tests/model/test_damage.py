"""Whatever happened to the files of a base or an adapter: it is read, or one line says why not."""

import shutil

import pytest
from damage import damage

from storyforge.core.assets import Origin
from storyforge.core.errors import UserError
from storyforge.model.likelihood import story_nll
from storyforge.model.loading import adapter_weights, load_adapter, load_base, load_encoder, save_adapter
from storyforge.sampling.generate import SamplingParams, write

SAMPLING = SamplingParams(seed=0, max_new_tokens=3, temperature=1, top_p=1, min_p=0, repetition_penalty=1)


@pytest.fixture
def read(tiny_model_dir, tuned, model_params, exchanges, tmp_path):
    """Damages a copy of the base or of an adapter; returns what was done and the refusal, if any."""
    save_adapter(tmp_path / "whole", tuned, adapter_weights(tuned), model_params)
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    params = model_params.model_copy(update={"origin": Origin.parse(f"folder:{base}")})

    def tried(seed: int) -> tuple[str, str | None]:
        for source, copy in ((tiny_model_dir, base), (tmp_path / "whole", adapter)):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(source, copy)
        done = damage(base if seed % 3 else adapter, seed)
        try:
            encoder = load_encoder(params)
            model = load_adapter(load_base(params), adapter, params)
            story_nll(model, [encoder.exchange(exchanges[0], 200)])
            write(model, encoder, ["Rain."], SAMPLING, seeds=[1])
        except UserError as error:
            return done, str(error)
        except Exception as error:
            raise AssertionError(f"seed {seed}, {done}") from error
        return done, None

    return tried


def assert_one_line_each(read, seeds):
    refused = [refusal for _, refusal in map(read, seeds) if refusal]
    assert len(refused) > len(seeds) / 2
    for line in refused:
        assert "\n" not in line and ("/base" in line or "/adapter" in line)


def test_damaged_files_are_refused_in_one_line(read):
    assert_one_line_each(read, range(40))


@pytest.mark.slow
def test_500_damaged_files_are_refused_in_one_line(read):
    assert_one_line_each(read, range(200, 700))
