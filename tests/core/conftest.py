"""A hub on the loopback address whose files come in several pieces, and a cache of each test's own."""

import hub
import pytest
from huggingface_hub import constants


@pytest.fixture
def waits(monkeypatch, tmp_path):
    """The seconds that the hub's client has waited for, instead of waiting."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 50_000)
    return hub.isolate(monkeypatch, tmp_path / "cache")
