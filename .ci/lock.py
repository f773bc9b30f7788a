"""Write requirements.lock and requirements-cuda.lock: hashes of the files `make setup HASHES=1` may install.

    pip install uv && python .ci/lock.py [WHEEL…]

uv resolves the pins for Linux and macOS on every Python from 3.11 to 3.14. Of a package that has wheels their
hashes are kept, not that of its source, whose build would run code. Builds of torch differ by index: a WHEEL
adds its own hash, and hashes so added stay as long as the version does. requirements-cuda.lock has what only
torch's CUDA builds need; requirements-cuda.txt, optional even there, and requirements-ray.txt are in neither.
"""

import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {False: ROOT / "requirements.lock", True: ROOT / "requirements-cuda.lock"}
CUDA = ("nvidia-", "cuda-", "triton")
MACHINES = product(("linux", "darwin"), ("x86_64", "aarch64", "arm64"), ("3.11", "3.12", "3.13", "3.14"))
PLACES = [
    {"sys_platform": system, "platform_machine": machine, "python_version": version}
    | {"python_full_version": f"{version}.0", "implementation_name": "cpython"}
    for system, machine, version in MACHINES
]
INTERPRETERS = {"py2", "py3", "cp311", "cp312", "cp313", "cp314"}
HEAD = "# Made by `python .ci/lock.py`, not by hand: it says from what and how.\n"


def resolved() -> list[dict[str, Any]]:
    """The packages that uv chooses, as pylock.toml lists them."""
    with tempfile.TemporaryDirectory() as folder:
        asked, made = Path(folder, "asked.txt"), Path(folder, "pylock.toml")
        texts = [
            (ROOT / f"requirements{part}.txt").read_text() for part in ("", "-dev", "-documents", "-judge")
        ]
        asked.write_text(re.sub(r"(?m)^-.*$", "", "\n".join(texts)))
        command = ["uv", "pip", "compile", str(asked), "--constraint", str(ROOT / "constraints.txt")]
        options = ["--universal", "--python-version", "3.11", "--format", "pylock.toml", "--quiet"]
        subprocess.run([*command, *options, "--no-config", "--output-file", str(made)], check=True)
        return tomllib.loads(made.read_text())["packages"]


def fits(wheel: str) -> bool:
    """Whether some supported Python on Linux or macOS can install it."""
    tags = parse_wheel_filename(wheel)[3]
    systems = ("any", "manylinux", "musllinux", "linux", "macosx")
    return any(
        tag.platform.startswith(systems) and (tag.interpreter in INTERPRETERS or tag.abi == "abi3")
        for tag in tags
    )


def entries(packages: list[dict[str, Any]], builds: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Name and lines of each package that Linux or macOS needs."""
    for package in sorted(packages, key=lambda package: package["name"]):
        marker, pin = package.get("marker"), f"{package['name']}=={package['version']}"
        if marker and not any(Marker(marker).evaluate(place) for place in PLACES):
            continue
        wheels = [wheel for wheel in package.get("wheels", []) if fits(name_of(wheel))]
        hashes = {file["hashes"]["sha256"] for file in wheels or [package["sdist"]]} | builds.get(pin, set())
        lines = [pin + (f" ; {marker}" if marker else ""), *(f"--hash=sha256:{h}" for h in sorted(hashes))]
        source = "" if wheels else f"--no-binary {package['name']}\n"
        yield package["name"], source + " \\\n    ".join(lines) + "\n"


def name_of(wheel: dict[str, Any]) -> str:
    return wheel.get("name") or wheel["url"].rpartition("/")[2]


def known_builds(wheels: list[Path]) -> dict[str, set[str]]:
    """Pin → hashes of torch's builds: those in the lock, and the given wheels'."""
    builds: dict[str, set[str]] = {}
    if LOCKS[False].exists():
        for pin, hashes in re.findall(r"(?m)^(torch==\S+) \\\n((?: +--hash.*\n)+)", LOCKS[False].read_text()):
            builds[pin] = set(re.findall(r"sha256:(\w+)", hashes))
    for wheel in wheels:
        name, version, *_ = parse_wheel_filename(wheel.name)
        builds.setdefault(f"{canonicalize_name(name)}=={version.public}", set()).add(
            hashlib.sha256(wheel.read_bytes()).hexdigest()
        )
    return builds


def main() -> None:
    found = list(entries(resolved(), known_builds([Path(each) for each in sys.argv[1:]])))
    for cuda, file in LOCKS.items():
        lines = [text for name, text in found if name.startswith(CUDA) == cuda]
        file.write_text(f"{HEAD}--only-binary :all:\n" + "".join(lines))


if __name__ == "__main__":
    main()
