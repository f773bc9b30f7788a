"""What an offline run of W&B holds, read back from the file that `wandb sync` would upload."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storyforge.core import tracking

FROM_OUTSIDE = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")
HEADER, BLOCK = 7, 32768  # of the file and of each piece; LevelDB's log format
WHOLE, LAST = 1, 4


@pytest.fixture
def nobody(tmp_path, monkeypatch) -> Path:
    """No key, no network, no experiment: the folder in which W&B's runs stay."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in FROM_OUTSIDE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tracking, "ROOT", tmp_path)
    import wandb  # costs a second and a half, so only where it is wanted

    wandb.teardown()  # it reads the environment once
    return tmp_path


def _messages(content: bytes) -> Iterator[bytes]:
    assert content[:4] == b":W&B"
    at, parts = HEADER, []
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + HEADER])
        parts.append(content[at + HEADER : at + HEADER + length])
        at += HEADER + length
        if kind in (WHOLE, LAST):
            yield b"".join(parts)
            parts = []


def offline_runs(folder: Path) -> list[dict[str, Any]]:
    """In the order they were begun: id, tags, config, history, summary and system samples of each."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # a finished run may still be on its way to the disk
    found = []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        run: dict[str, Any] = {"history": [], "summary": {}, "system": set(), "file": file}
        for message in _messages(file.read_bytes()):
            record = Record.FromString(message)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                run |= {"id": record.run.run_id, "tags": list(record.run.tags), "group": record.run.run_group}
                run["config"] = {row.key: json.loads(row.value_json) for row in record.run.config.update}
            elif kind == "history":
                run["history"].append(_items(record.history.item))
            elif kind == "summary":
                run["summary"] |= _items(record.summary.update)
            elif kind == "stats":
                run["system"] |= {item.key for item in record.stats.item}
        found.append(run)
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
