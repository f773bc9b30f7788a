"""Penn Treebank tokens → prose, as WritingPrompts is served: fully in prompts, halfway in stories.

Halfway means that spaces before punctuation and apostrophes are gone already, wanted ones among them.
"""

import re

BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
BRACKET = re.compile("|".join(BRACKETS))
CLITIC = re.compile(r" '(s|m|d|re|ve|ll)\b(?!')", re.I)
DOUBLED_CLITIC = re.compile(r"''(?<=\w'') (s|m|d|re|ve|ll|t)\b")  # What'' s
CURLY_CLITIC = re.compile(r"’ (s|m|d|re|ve|ll|t)\b(?!’)", re.I)
CURLY_APART = re.compile(r" ’(?=(?:s|m|d|re|ve|ll|t)\b(?!’))", re.I)
CURLY_START = re.compile(r" ’ (?=(?:til|em|cause|tis|twas|bout|round|cuz)\b)", re.I)
SPLIT_WORDS = tuple(
    (f"{half} {rest}", re.compile(rf"{half}(?<!\w{half}) {rest}\b(?! only)"), half + rest)
    for pair in ("gon na", "wan na", "got ta", "gim me", "lem me", "can not")
    for half, rest in (pair.split(), pair.capitalize().split(), pair.upper().split())
)
TIS = re.compile(r"('(?<!\w')[tT]) (?=(?:is|was|were|will)\b)")
QUOTE = re.compile(r"(``|''|\")")
# An opening single quote that lost the space before it; a closing one must follow, so that o'clock is safe.
STUCK = re.compile(
    r"'(?!(?:s|t|m|d|re|ve|ll)\b)(?:(?<=[,;:?!…]')(?=[A-Za-z])"
    r"|(?:(?<=[a-z]{3}')|(?<=\.')|(?<= a')|(?<= (?:an|as|at|be|by|in|is|my|of|or|to)'))"
    r"(?=[A-Za-z][^'\n]{0,150}'(?!\w)))"
)
CLOSING, OPENING = ",;:?!%)]}…”", "([{“‘$£€"  # no space before, none after
DASH = re.compile(r"--(?<!---)-?(?!-)")


def detokenised(text: str) -> str:
    """The text as its author spaced it, as far as can be told; straight quotes stay straight."""
    text = BRACKET.sub(lambda match: BRACKETS[match[0]], text)
    for token in (" n't", " N'T", " n’t", " n ’ t"):
        text = text.replace(token, token.replace(" ", ""))
    text = TIS.sub(r"\1", text)
    text = DOUBLED_CLITIC.sub(r"'\1", CLITIC.sub(r"'\1", text))
    if "’" in text:
        text = CURLY_APART.sub("’", CURLY_CLITIC.sub(r"’\1", text))
        text = CURLY_START.sub(" ’", text)
    for pair, split, whole in SPLIT_WORDS:
        if pair in text:
            text = split.sub(whole, text)
    text = "\n".join(map(_quoted, text.split("\n")))
    if "`" in text:
        text = re.sub(r"` ?", "'", text)
    text = re.sub(r" '(?=[\s,.;:?!]|$)(?<=\w '|[.,!?] ')", "'", STUCK.sub(" '", text))
    return _closed_up(text)


def _quoted(line: str) -> str:
    """Double quotes opened and closed: by turns where they are even, else as the tokeniser guessed."""
    text, *rest = QUOTE.split(line)
    marks, pieces = rest[::2], rest[1::2]
    for turn, (mark, piece) in enumerate(zip(marks, pieces, strict=True)):
        opens = turn % 2 == 0 if len(marks) % 2 == 0 else _opens(mark, text, piece)
        before, after = text.rstrip(" "), piece.lstrip(" ")
        if opens:
            text = before + ('"' if not before or before[-1] in "([{—-" else ' "') + after
        else:
            text = before + ('" ' if piece[:1] == " " or piece[:1].isalnum() else '"') + after
    return text.strip()


def _opens(mark: str, before: str, after: str) -> bool:
    if mark == '"':
        return before[-1:] in ("", " ") and after[:1] != " "
    return not before.strip() or mark == "``" and after.strip()[:1] not in ("", ",", ".")


def _closed_up(text: str) -> str:
    """Without spaces where none belong, and dashes as dashes."""
    text = re.sub(r" {2,}", " ", text) if "  " in text else text
    for mark in CLOSING:
        text = text.replace(f" {mark}", mark)
    for mark in OPENING:
        text = text.replace(f"{mark} ", mark)
    if " ." in text:
        text = re.sub(r" \.(?!\d)", ".", text)
    if " ’" in text:
        text = re.sub(r" ’(?!\w)", "’", text)
    if "# " in text:
        text = re.sub(r"# (?=\d)", "#", text)
    if "--" in text:
        text = DASH.sub("—", text.replace(" --", "--").replace("-- ", "--"))
    return text
