"""A hub on the loopback address whose files come in several pieces, and a cache of each test's own."""

import bucket
import hub
import pytest
from huggingface_hub import constants


@pytest.fixture
def waits(monkeypatch, tmp_path):
    """The seconds that the hub's client has waited for, instead of waiting."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    return hub.isolate(monkeypatch, tmp_path / "cache")


@pytest.fixture
def store(monkeypatch, tmp_path):
    """An object store, and a folder of this node for what it fetches."""
    monkeypatch.setenv("STORYFORGE_CACHE", str(tmp_path / "cache"))
    with bucket.started(monkeypatch) as found:
        yield found
