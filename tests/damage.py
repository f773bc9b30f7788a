"""Seeded damage to the files of a model or an adapter."""

import json
import random
from collections.abc import Callable
from pathlib import Path

VALUES = (
    None,
    True,
    -1,
    0,
    3,
    0.5,
    1e308,
    10**6,
    10**30,
    "",
    "x",
    "../..",
    "\ud800",
    [],
    {},
    [1],
    {"a": 1},
    [[]],
)
TEXTS = (
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"[" * 100_000,
    b'{"a":' * 2_000,
    b'{"hidden_size": ' + b"9" * 5_000 + b"}",
    b'{"a": NaN}',
    b"\xef\xbb\xbf{}",
    "{}".encode("utf-16"),
    b'{"a": "\xff"}',
)


def damage(folder: Path, seed: int) -> str:
    """One file of the folder is no longer what it was; says what was done."""
    chance = random.Random(seed)
    path = chance.choice(sorted(folder.iterdir()))
    kinds: list[Callable] = [_gone, _folder, _cut, _rubbish, _flipped, _text]
    if path.suffix == ".json":
        kinds += [_value] * 14
    else:
        kinds += [_header] * 6
    kind = chance.choice(kinds)
    return f"{path.name}: {kind.__name__.strip('_')} {kind(path, chance) or ''}"


def _gone(path: Path, chance: random.Random) -> None:
    path.unlink()


def _folder(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _cut(path: Path, chance: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)])


def _rubbish(path: Path, chance: random.Random) -> None:
    path.write_bytes(chance.randbytes(chance.choice((1, 7, 8, 9, 1000))))


def _flipped(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 20))):
        content[chance.randrange(min(len(content), 3000))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def _text(path: Path, chance: random.Random) -> str:
    text = chance.choice(TEXTS)
    path.write_bytes(text)
    return repr(text[:20])


def _value(path: Path, chance: random.Random) -> str:
    content = json.loads(path.read_text())
    said = _changed(content, chance)
    path.write_text(json.dumps(content))
    return said


def _changed(content, chance: random.Random) -> str:
    """A random value in it becomes another, or goes."""
    holder, names = content, []
    while True:
        keys = sorted(holder) if isinstance(holder, dict) else range(len(holder))
        key = chance.choice(keys[:40] if isinstance(holder, list) else keys)
        names.append(str(key))
        if not isinstance(holder[key], dict | list) or not holder[key] or chance.random() < 0.4:
            break
        holder = holder[key]
    if chance.random() < 0.15:
        del holder[key]
        return f"{'.'.join(names)} gone"
    holder[key] = chance.choice(VALUES)
    return f"{'.'.join(names)} = {holder[key]!r}"


def _header(path: Path, chance: random.Random) -> str:
    """Of a safetensors file: eight bytes of length, JSON, numbers."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if chance.random() < 0.2:
        path.write_bytes(chance.randbytes(8) + content[8:])
        return "length"
    header = json.loads(content[8 : 8 + length])
    said = _changed(header, chance)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return said
