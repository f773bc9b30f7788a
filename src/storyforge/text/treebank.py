"""Penn Treebank tokens → prose, as WritingPrompts is served: fully in prompts, halfway in stories.

Halfway means that spaces before punctuation and apostrophes are gone already, wanted ones among them.
"""

import re

BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
BRACKET = re.compile("|".join(BRACKETS))
CLITIC = re.compile(r" '(s|m|d|re|ve|ll)\b(?!')", re.I)
DOUBLED_CLITIC = re.compile(r"''(?<=\w'') (s|m|d|re|ve|ll|t)\b")  # What'' s
CURLY_CLITIC = re.compile(r" ?’ ?(s|m|d|re|ve|ll|t)\b(?!’)", re.I)
CURLY_START = re.compile(r" ’ (?=(?:til|em|cause|tis|twas|bout|round|cuz)\b)", re.I)
SPLIT_WORD = re.compile(r" (?:(na|NA)|(ta|TA)|(me|ME)|(not|NOT)(?! only))\b")
HALVES = {"na": ("gon", "wan"), "ta": ("got",), "me": ("gim", "lem"), "not": ("can",)}
TIS = re.compile(r" '([tT]) (?=(?:is|was|were|will)\b)")
QUOTE = re.compile(r"( *)(``|''|\")( *)")
# An opening single quote that lost the space before it; a closing one must follow, so that o'clock is safe.
STUCK = re.compile(
    r"'(?<=[,;:?!…]')(?=[A-Za-z]{2})"
    r"|'(?:(?<=[a-z]{3}')|(?<=[.]'))(?!(?:s|t|m|d|re|ve|ll)\b)(?=[A-Za-z][^'\n]{0,150}'(?!\w))"
)
SPACE_BEFORE = re.compile(r" +(?=[,;:?!%)\]}…”]|\.(?!\d)|’(?!\w))")
SPACE_AFTER = re.compile(r"([(\[{“‘$£€]) +|# +(?=\d)")
DASH = re.compile(r" ?--(?<!---)-?(?!-) ?")


def detokenised(text: str) -> str:
    """The text as its author spaced it, as far as can be told; straight quotes stay straight."""
    text = BRACKET.sub(lambda match: BRACKETS[match[0]], text)
    for token in (" n't", " N'T", " n’t", " n ’ t"):
        text = text.replace(token, token.replace(" ", ""))
    text = TIS.sub(r" '\1", text)
    text = DOUBLED_CLITIC.sub(r"'\1", CLITIC.sub(r"'\1", text))
    if "’" in text:
        text = CURLY_START.sub(" ’", CURLY_CLITIC.sub(r"’\1", text))
    text = SPLIT_WORD.sub(_joined, text)
    text = "\n".join(map(_quoted, text.split("\n")))
    if "`" in text:
        text = re.sub(r"` ?", "'", text)
    text = re.sub(r" '(?=[\s,.;:?!]|$)(?<=\w '|[.,!?] ')", "'", STUCK.sub(" '", text))
    text = SPACE_AFTER.sub(lambda match: match[1] or "#", SPACE_BEFORE.sub("", text))
    return DASH.sub("—", text).replace(". . .", "...")


def _joined(match: re.Match[str]) -> str:
    """`gon na` as gonna, `can not` as cannot; any other `me` or `not` as it stands."""
    half = match.string[max(0, match.start() - 4) : match.start()].lower()
    joins = any(
        half.endswith(first) and not half[:-3].isalpha() for first in HALVES[match[0].strip().lower()]
    )
    return match[0].strip() if joins else match[0]


def _quoted(line: str) -> str:
    """Double quotes opened and closed: by turns where they are even, else as the tokeniser guessed."""
    count = len(QUOTE.findall(line))
    if not count:
        return line
    turns = iter(range(count))

    def quote(match: re.Match[str]) -> str:
        before, after = line[: match.start()][-1:], line[match.end() :][:1]
        turn = next(turns)
        if turn % 2 == 0 if count % 2 == 0 else _opens(match, before, after):
            return '"' if not before or before in "([{—-" else ' "'
        return '" ' if match[3] or after.isalnum() else '"'

    return QUOTE.sub(quote, line).strip()


def _opens(match: re.Match[str], before: str, after: str) -> bool:
    if match[2] == '"':
        return bool(match[1] or not before) and not match[3]
    return not before or (match[2] == "``" and after not in ("", ",", "."))
