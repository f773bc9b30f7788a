"""The key under which the work of a run is gone on with."""

import re
import sys
from pathlib import Path

from storyforge.train.keys import PACKAGE, hashes, packages, run_key, sources


def test_the_key_is_of_everything_it_is_given():
    key = run_key(params={"a": 1, "b": 2})
    assert key == run_key(params={"b": 2, "a": 1})
    assert key != run_key(params={"a": 1, "b": 3})
    assert key != run_key(params={"a": 1, "b": 2}, files={})


def test_the_code_of_a_run_is_the_files_of_ours_that_are_loaded():
    files = hashes(sources(), PACKAGE)
    assert {"core/files.py", "train/keys.py"} <= files.keys()
    assert all(len(digest) == 64 for digest in files.values())


def test_every_package_that_models_are_computed_with_is_in_the_key():
    """By the imports of model, engine and train; these two read and show."""
    code = [file for name in ("model", "engine", "train") for file in (PACKAGE / name).glob("*.py")]
    tops = set(re.findall(r"^ *(?:from|import) (\w+)", "\n".join(map(Path.read_text, code)), re.MULTILINE))
    outside = tops - sys.stdlib_module_names - {"storyforge", "pydantic", "tqdm"}
    names = {name.replace("_", "-") for name in outside} - {"liger-kernel"}  # in the machine class
    assert {"torch", "peft"} < names and names <= packages().keys()
