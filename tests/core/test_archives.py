"""An archive is read by allow-listed name, and a hostile one not at all."""

import os
import zipfile
from pathlib import Path

import pytest

from storyforge.core.archives import members
from storyforge.core.errors import UserError


def zipped(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "entries",
    [
        [("../a.txt", b"a")],
        [("/etc/a.txt", b"a")],
        [("x/../../a.txt", b"a")],
        [("x\\..\\a.txt", b"a")],
        [("a.txt", b"a"), ("a.txt", b"b")],
    ],
)
def test_archive_with_a_strange_name_is_refused(entries, tmp_path):
    with pytest.raises(UserError, match="holds a name twice, or one that leads out"):
        list(members(zipped(tmp_path / "a.whl", ("good.txt", b"good"), *entries), "good.txt"))


def test_archive_that_unpacks_without_measure_is_refused(tmp_path):
    bomb = zipped(tmp_path / "a.whl", ("a.txt", bytes(10_000_000)))
    with pytest.raises(UserError, match="a.txt would unpack to 10,000,000 bytes"):
        list(members(bomb, "*.txt"))


def test_encrypted_member_is_refused(tmp_path):
    path = zipped(tmp_path / "a.whl", ("a.txt", b"secret"))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="a.txt is encrypted"):
        list(members(path, "*.txt"))


def test_damaged_archive_is_one_line(tmp_path):
    path = zipped(tmp_path / "a.whl", ("a.txt", os.urandom(1000)))
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="a.whl: cannot be read as an archive"):
        list(members(path, "*.txt"))
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="a.whl: cannot be read as an archive"):
        list(members(path, "*.txt"))


def test_only_what_matches_is_read_and_in_the_order_of_names(tmp_path):
    path = zipped(tmp_path / "a.whl", ("b/2.txt", b"two"), ("b/1.txt", b"one"), ("b/1.py", b"code"))
    assert list(members(path, "b/*.txt")) == [("b/1.txt", b"one"), ("b/2.txt", b"two")]
