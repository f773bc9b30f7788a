"""A registered adapter is taken from another repository by name, as docs/EXPORT.md says, without network."""

import shutil

import pytest
from pipeline import ROOT, Repository
from ruamel.yaml import YAML

from storyforge.model.likelihood import story_nll
from storyforge.model.loading import adapter_weights, load_adapter, load_base, save_adapter


@pytest.fixture
def origin(tmp_path, environment, tuned, model_params) -> Repository:
    """A repository whose stage made an adapter, pushed to a remote that anybody can read."""
    root = tmp_path / "origin"
    save_adapter(tmp_path / "adapter", tuned, adapter_weights(tuned), model_params)
    stage = {"cmd": f"mkdir -p models && cp -r {tmp_path}/adapter models/tuned", "outs": ["models/tuned"]}
    ours = YAML(typ="safe").load(ROOT / "dvc.yaml")["artifacts"]
    root.mkdir()
    YAML(typ="safe").dump({"stages": {"train": stage}, "artifacts": ours}, root / "dvc.yaml")
    repository = Repository(root, environment)
    repository.git("init", "--quiet")
    repository.dvc("init", "--quiet")
    repository.dvc("remote", "add", "--quiet", "--default", "shelf", str(tmp_path / "shelf"))
    repository.dvc("repro", "--quiet")
    repository.dvc("push", "--quiet")
    repository.commit("run")
    return repository


def test_a_registered_adapter_is_taken_by_version_and_by_stage(
    origin, tmp_path, tuned, model_params, encoded, environment
):
    origin.run("gto", "register", "story-adapter", "--version", "v0.1.0")
    origin.run("gto", "assign", "story-adapter", "--version", "v0.1.0", "--stage", "prod")
    assert origin.git("tag").split() == ["story-adapter#prod#1", "story-adapter@v0.1.0"]
    shutil.rmtree(origin.root / "models")
    shutil.rmtree(origin.root / ".dvc" / "cache")  # nothing but git and the remote is left

    (tmp_path / "elsewhere").mkdir()
    reader = Repository(tmp_path / "elsewhere", environment)
    for words in (("--rev", "v0.1.0"), ("--stage", "prod")):
        taken = tmp_path / "elsewhere" / words[-1]
        reader.dvc("artifacts", "get", str(origin.root), "story-adapter", *words, "--out", str(taken))
        again = load_adapter(load_base(model_params), taken, model_params)
        assert story_nll(again, encoded) == story_nll(tuned, encoded)


def test_a_version_that_was_never_registered_is_refused(origin, tmp_path):
    origin.run("gto", "register", "story-adapter", "--version", "v0.1.0")
    words = ("artifacts", "get", str(origin.root), "story-adapter", "--rev", "v9.9.9")
    said = Repository(tmp_path, origin.env).dvc(*words, status=1)
    assert "Unable to find artifact 'story-adapter @ v9.9.9'" in said and not (tmp_path / "tuned").exists()
