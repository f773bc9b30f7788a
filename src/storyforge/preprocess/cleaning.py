"""Characters as they were meant: encoding, control tokens, white space. Repairs and never drops."""

import html
import re
import unicodedata

import ftfy

# The closing quote of a text decoded as Windows-1252 whose third byte, undefined there, was thrown away.
# ftfy cannot know it (it would read a dagger and eat the space), so it goes first.
LOST_BYTE = re.compile(r"â€(?=[\x00-\x7f]|$)")
# Two characters no English text puts together: the first bytes of UTF-8 read as Latin-1 or Windows-1252.
MOJIBAKE = re.compile(r"[Â-ô][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
ENTITY = re.compile(r"& ?(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8}) ?;")
# Controls but those that break a line, zero-width and directional marks, private use, surrogates.
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\ue000-\uf8ff\U000e0000-\U0010ffff]"
)
# What chat formats use for turns and ends: ChatML, Llama 2 and 3, Gemma, Mistral, DeepSeek, T5 and BERT.
CONTROL_TOKEN = re.compile(
    r"<\s*[|｜][^<>\n]{0,40}?[|｜]\s*>|</?s>|<(?:bos|eos|pad|unk|mask)>|<(?:start|end)_of_(?:turn|image)>"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|CLS|SEP|MASK)\]|<</?SYS>>",
    re.IGNORECASE,
)
END_OF_TEXT = re.compile(r"<\|\s*end_?of_?text\s*\|>", re.IGNORECASE)


def repaired(text: str) -> str:
    """The text in NFC with its encoding mended, no entities, control tokens or invisible characters."""
    text = spaced(text)
    while (better := _mended(text)) != text:  # an entity may hide an entity, a control token or mojibake
        text = spaced(better)
    return text


def _mended(text: str) -> str:
    text = INVISIBLE.sub("", text)
    if text.isascii() and not any(mark in text for mark in "&<["):
        return text
    text = LOST_BYTE.sub("”", text)
    if MOJIBAKE.search(text):
        text = ftfy.fix_encoding(text)
    text = ENTITY.sub(lambda match: html.unescape(f"&{match[1]};"), text)
    return unicodedata.normalize("NFC", without_control_tokens(text))


def without_control_tokens(text: str) -> str:
    """Taken out until none is left: one inside another must not leave a third."""
    while "<" in text or "[" in text:
        text, found = CONTROL_TOKEN.subn("", text)
        if not found:
            break
    return text


def spaced(text: str) -> str:
    """One space between words, lines trimmed, one empty line at most between paragraphs, none at the ends."""
    lines = "\n".join(" ".join(line.split()) for line in text.splitlines()).strip()
    return re.sub(r"\n{3,}", "\n\n", lines) if "\n\n\n" in lines else lines
