"""Which encoding a person's file is in, and its text."""

import codecs
import re
import unicodedata
from collections import Counter

from charset_normalizer import from_bytes

from storyforge.collect.reading import Unusable, decoded

MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
# Of the hundred that charset-normalizer knows, those that people's files are in; more would only raise doubt.
CHARSETS = {
    "cp1252": "Windows-1252",
    "cp1250": "Windows-1250",
    "cp1251": "Windows-1251",
    "cp1253": "Windows-1253",
    "mac_roman": "Mac Roman",
    "koi8_r": "KOI8-R",
    "cp932": "Shift-JIS",
    "euc_jp": "EUC-JP",
    "gb18030": "GB 18030",
    "big5": "Big5",
    "cp949": "EUC-KR",
}
MIN_COHERENCE = 0.4  # of a text in one of its languages charset-normalizer gives 0.42 to 0.75
SAME_CHAOS = 0.02  # two readings this close are equally likely
# What writers in Western languages use of Windows-1252. A word of one language has letters of one row: Czech
# and Polish in Windows-1250, read so, mix them ("pøišel"), or have signs inside words ("by³").
ALPHABETS = (
    "àâæçéèêëîïôœùûüÿ",  # French
    "áéíóúüñ",  # Spanish
    "äöüßé",  # German
    "àèéìòù",  # Italian
    "áâãàçéêíóôõú",  # Portuguese
    "åäæéöø",  # Scandinavian
    "áäéèêëïóöü",  # Dutch
)
WESTERN = [frozenset(row + row.upper()) for row in ALPHABETS]
SIGNS = set("‘’‚“”„‹›«»–—…•·¡¿ªº²³£€¢¥§©®™°±×÷¼½¾\u00a0\u00ad")
MISPLACED = re.compile(r"[a-zA-ZÀ-ÿ][£¥¼¾²³ªº¡¿]|[£¥¼¾²³ªº][a-zA-ZÀ-ÿ]")
RARE, MOST = 0.02, 0.2  # of the letters: foreign words in English; more than any Western language has
OF_ONE = 0.9  # of the words with such letters, where these are not rare, belong to one language


def guessed(data: bytes) -> str:
    """The text of one's own file: Unicode by its mark, UTF-8, or another encoding where no doubt is left.

    Unusable where there is doubt; its detail is what the encoding looks like.
    """
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            try:
                return data.removeprefix(mark).decode(encoding)
            except UnicodeDecodeError:
                raise Unusable("damaged", f"its mark says {encoding.upper()}") from None
    try:
        return decoded(data)
    except Unusable as reason:
        if str(reason) != "invalid_utf8" or b"\0" in data:
            raise
    if (text := _western(data)) is not None:
        return text
    found = from_bytes(data, cp_isolation=list(CHARSETS))
    likely = [match for match in found if match.coherence >= MIN_COHERENCE]
    if not likely:
        raise Unusable("invalid_utf8")
    least = min(match.chaos for match in likely)
    texts = {str(match): match for match in likely if match.chaos <= least + SAME_CHAOS}
    ranked = sorted(texts, key=_plausible, reverse=True)
    best = texts[ranked[0]]
    if len(ranked) > 1 and _plausible(ranked[0]) == _plausible(ranked[1]):
        named = next(name for charset, name in CHARSETS.items() if charset in best.could_be_from_charset)
        raise Unusable("invalid_utf8", f"looks like {named}")
    return ranked[0]


def _western(data: bytes) -> str | None:
    """The text in Windows-1252 where it is like that of a Western writer, and not more so in Mac Roman."""
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return None
    beyond = Counter(letter for letter in text if letter > "\x7f")
    letters = set(beyond) - SIGNS
    if not letters <= frozenset().union(*WESTERN) or MISPLACED.search(text):
        return None
    words = [set(word) - SIGNS for word in re.findall(r"[^\W\d_]*[À-ÿœŒŸ][^\W\d_]*", text)]
    words = [{letter for letter in word if letter > "\x7f"} for word in words]
    share = sum(beyond[letter] for letter in letters) / max(1, sum(map(str.isalpha, text)))
    of_one = max(sum(word <= alphabet for word in words) for alphabet in WESTERN)
    mixed = any(not any(word <= alphabet for alphabet in WESTERN) for word in words)
    if mixed or share > MOST or (share > RARE and of_one < OF_ONE * len(words)):
        return None
    return text if _plausible(text) >= _plausible(data.decode("mac_roman")) else None


def _plausible(text: str) -> int:
    """Quotation marks, dashes and dots, less capitals after small letters: “a café” beats Òa cafÈÓ."""
    marks = sum(unicodedata.category(letter) in ("Pi", "Pf", "Pd") or letter == "…" for letter in text)
    pairs = zip(text, text[1:], strict=False)
    return marks - sum(first.islower() and second.isupper() and second > "\x7f" for first, second in pairs)
