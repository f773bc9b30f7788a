"""Which worker of `pytest -n` runs what: a file's tests in one, and the folders that take longest first.

So what a file builds for all its tests is built once. The groups of pytest-xdist 3.8 do nothing under
pytest 9.2, and say nothing of it.
"""

import pytest

FIRST = ("graph", "faults", "train", "align", "commands", "evaluate", "judge", "revise")
BUILT = {"test_pipeline.py", "test_remotes.py"}  # they need the repository that takes a minute to build


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    """The others keep their order: `sort` is stable."""
    place = {folder: number for number, folder in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.parent.name, len(FIRST)))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "built" if file.rpartition("/")[2] in BUILT else file

    config.option.loadscopereorder = False  # it would begin with the files of most tests
    return ByFile(config, log)
