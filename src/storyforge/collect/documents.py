"""Word processors' files, web pages and e-books → their text and what they say of themselves, by pandoc.

Pandoc is a program of its own (GPL), brought by the optional package pypandoc_binary. It reads nothing but
the bytes it is given (`--sandbox`), for a limited time and in limited memory.
"""

import io
import json
import re
import subprocess
import zipfile
from pathlib import Path
from typing import Any

from storyforge.collect.encodings import guessed
from storyforge.collect.reading import MAX_RECORD_BYTES, Unusable
from storyforge.collect.zips import unsafe

FORMATS = {
    ".docx": "docx",
    ".odt": "odt",
    ".rtf": "rtf",
    ".epub": "epub",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}
ZIPPED = ("docx", "odt", "epub")
MAX_SECONDS = 180  # a novel of 100,000 words: 2 of a quiet processor, 10 beside other work
MAX_HEAP = "1g"  # of pandoc's -M; that novel takes 170 MiB
HERE = Path(__file__).parent

# The RTF specification lets a backslash before a line break end a paragraph, as Apple's programs write it,
# and any character stand in for a Unicode one; pandoc 3.9 ends no paragraph, and of `\u8221?x` loses the x.
RTF_BREAK = re.compile(rb"(?<!\\)((?:\\\\)*)\\\r?\n")
HEADER = re.compile(rb"<(/?)header\b", re.IGNORECASE)  # pandoc makes it a division like any other
RTF_STAND_IN = re.compile(rb"(\\u-?\d+)[^\\{}\s\d;]")


def pandoc() -> str | None:
    """Where the program is; None where requirements-documents.txt is not installed."""
    try:
        import pypandoc

        return pypandoc.get_pandoc_path()
    except (ImportError, OSError):
        return None


def converted(data: bytes, suffix: str, program: str) -> tuple[bytes, dict[str, Any]]:
    """UTF-8 text, with headings and italics as Markdown has them, and title, author, date; else Unusable."""
    form = FORMATS[suffix]
    if form in ZIPPED:
        _require_bounded(data)
    elif form == "html":
        data = HEADER.sub(rb"<\1nav", guessed(data).encode(errors="replace"))
        form = "html+raw_html"  # plain.lua sees where navigation and footers begin and end
    elif form == "rtf":
        if not data.startswith(b"{\\rtf"):
            raise Unusable("damaged", "it does not begin as RTF does")
        data = RTF_STAND_IN.sub(rb"\1\\'3f", RTF_BREAK.sub(rb"\1\\par\n", data))
    limits = ["+RTS", f"-M{MAX_HEAP}", "-RTS", "--sandbox"]
    shape = ["--wrap=none", f"--lua-filter={HERE / 'plain.lua'}", f"--template={HERE / 'plain.template'}"]
    command = [program, *limits, "--from", form, "--to", "plain", *shape]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=MAX_SECONDS)
    except subprocess.TimeoutExpired:
        raise Unusable("damaged", f"pandoc did not end in {MAX_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").split("\n")[0][:120]
        raise Unusable("damaged", f"pandoc: {said or done.returncode}")
    if len(done.stdout) > MAX_RECORD_BYTES:
        raise Unusable("too_long")
    about, _, text = done.stdout.partition(b"\n")
    try:
        return text, json.loads(about)
    except (ValueError, RecursionError):
        raise Unusable("damaged", "its properties cannot be read") from None


def _require_bounded(data: bytes) -> None:
    """Unusable where the archive is damaged or a bomb; one whose headers lie meets the heap's limit."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            infos = zipped.infolist()
            if (trouble := unsafe(infos)) is not None:
                raise trouble
            for info in infos:
                with zipped.open(info) as member:
                    while member.read(1 << 20):  # raises where its checksum does not fit
                        pass
    except Unusable:
        raise
    except Exception:  # zipfile raises many kinds on bytes that only look like an archive
        raise Unusable("damaged", "not a whole file, or of another kind than its name says") from None
