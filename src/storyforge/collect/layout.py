"""Titles, chapter headings and line breaks of a plain text, told from its prose."""

import re

BYLINE = re.compile(r"^\W{0,3}(?:a (?:short )?story )?by:? +(.{2,60}?)\W{0,3}$", re.IGNORECASE)
MAX_TITLE, MAX_TITLE_WORDS = 80, 12
MAX_HEADING = 200  # characters
MAX_NUMBERED = 300  # chapters; more numbers are a list
COUNT = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
ORDER = "the (?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last)"
NUMERAL = rf"(?:\d{{1,3}}|(?-i:[IVXLC]+)|(?:twenty|thirty|forty)(?:[ -]\w+)?|\w*teen|{COUNT}|{ORDER})"
# "CHAPTER I. The Storm", "Chapter 3 The Storm", "Epilogue"; not "Part one was simple.", "Book the tickets."
HEADING = re.compile(
    rf"^[*_\s]*(?:(?:chapter|part|book|volume)\s+{NUMERAL}"
    r"(?:\s*[.:)–—-].{0,70}|(?-i:\s+[A-ZÀ-Þ“‘\"'].{0,70}(?<![.!?,;”\"]))|)"
    r"|(?:prologue|epilogue|interlude)(?:[.:–—-].{0,40})?)[*_\s]*$",
    re.IGNORECASE,
)
MARKED = re.compile(r"^#{1,6}[ \t]+(?=.*\w)(?!(?:ACT|SCENE|INT|EXT)\b)(.*?)[ \t#]*$")
BARE = re.compile(r"^[ \t]*(\d{1,3}|[IVXL]+)\.?[ \t]*$")
SCENE = re.compile(r"^(?:INT|EXT|EST|INT\./EXT|I/E)[. ]", re.IGNORECASE)
MIN_WIDTH, MAX_WIDTH, SLACK = 45, 100, 5  # characters of a line that a program has broken
MIN_INNER = 0.5  # of those, before a small letter: else each line is a sentence or a speech of its own
MIN_BREAKS = 3  # fewer may be chance
MIN_WRAPPED = 0.7  # of the line breaks inside paragraphs: verse has few that fall where a program would break


def without_headings(text: str) -> tuple[str, str | None, str | None, int]:
    """The text without its title and headings; title, author, and how many headings there were."""
    lines = text.strip("\n").split("\n")
    title, author, used = _title(lines)
    lines = lines[used:]
    blank = [not line.strip() for line in lines]
    short = [(n, line) for n, line in enumerate(lines) if len(line) <= MAX_HEADING]
    marked = {n for n, line in short if MARKED.match(line)}
    heads = marked | {n for n, line in short if HEADING.match(line)} | _numbered(lines, blank)
    alone = {
        n for n in heads if all(m < 0 or m >= len(lines) or blank[m] or m in heads for m in (n - 1, n + 1))
    }
    taken = alone | marked
    kept = [line if n not in taken else "" for n, line in enumerate(lines)]
    if not any(line.strip() for line in kept):
        return text, None, None, 0  # a text of headings alone stays as it is
    bare = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)) if taken else "\n".join(lines)
    return bare, title, author, len(taken)


def _title(lines: list[str]) -> tuple[str | None, str | None, int]:
    """Title, author, and how many lines they take; a first line must look like a title and stand alone."""
    first = lines[0].strip()
    if len(first) > MAX_HEADING:
        return None, None, 0
    used, title = 1, None
    if len(lines) > 1 and re.fullmatch(r"=+ *", lines[1]) and first:
        used, title = 2, first
    elif marked := re.match(r"#[ \t]+(.*?)[ \t#]*$", first):
        title = marked[1].strip("*_ ")
    elif len(first) <= MAX_TITLE and len(first.split()) <= MAX_TITLE_WORDS and _like_a_title(first):
        title = first.strip("*_ ")
    if not title or HEADING.match(title):
        return None, None, 0
    after = next((n for n in range(used, len(lines)) if lines[n].strip()), None)
    if after is None:
        return None, None, 0
    author = BYLINE.match(lines[after].strip())
    if author:
        used = after + 1
        if not any(line.strip() for line in lines[used:]):
            return None, None, 0
    elif after == used and not (used == 2 or first.startswith("#")):
        return None, None, 0
    return title, author[1].strip() if author else None, used


def _like_a_title(line: str) -> bool:
    """No sentence, no speech, no scene heading: "The Well", "WHO GOES THERE?"; not "She ran.", "Stop!"."""
    bare = line.strip("*_ ")
    words = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", bare)
    if (
        not words
        or not re.search(r"[^\W\d_]", bare)
        or bare[0] in "#\"'“‘«—–-"
        or bare[-1] in '.,;:…"”»—–'
        or SCENE.match(bare)
    ):
        return False
    if bare[-1] in "?!":
        return len(words) > 2 and not any(word[0].islower() for word in words if len(word) > 3)
    return not words[0][0].islower()


def _numbered(lines: list[str], blank: list[bool]) -> set[int]:
    """Lines that are numbers alone, where they count from one; one number alone may be anything."""
    found = [(n, match[1]) for n, line in enumerate(lines) if (match := BARE.match(line))]
    found = [
        (n, each) for n, each in found if (n == 0 or blank[n - 1]) and (n + 1 == len(lines) or blank[n + 1])
    ]
    if len(found) > MAX_NUMBERED:
        return set()
    for count in (
        [str(number) for number in range(1, len(found) + 1)],
        [_roman(n) for n in range(1, len(found) + 1)],
    ):
        if len(found) > 1 and [each for _, each in found] == count:
            return {n for n, _ in found}
    return set()


def _roman(number: int) -> str:
    tens, ones = divmod(number, 10)
    return "X" * tens + ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"][ones]


def joined(text: str) -> tuple[str, int]:
    """Paragraphs that a program broke into lines of one width, a line each; and how many breaks went.

    Verse, speeches and lists stay: few of their lines end where the next word would not have fitted, or most
    begin with a capital.
    """
    lines = text.split("\n")
    inside = [n for n in range(len(lines) - 1) if lines[n].strip() and lines[n + 1].strip()]
    lengths = sorted(len(lines[n].rstrip()) for n in inside)
    if not lengths or not MIN_WIDTH <= (width := lengths[int(0.98 * (len(lengths) - 1))]) <= MAX_WIDTH:
        return text, 0

    def wrapped(n: int) -> bool:
        this, after = lines[n].rstrip(), lines[n + 1]
        indented = this[:1].isspace() and this[:4].isspace() or after[:2].isspace()
        full = len(this) + 1 + len(after.split()[0]) > width - SLACK
        return full and not indented and not lines[n].endswith("  ")

    broken = {n for n in inside if wrapped(n)}
    inner = sum(lines[n + 1].lstrip()[0].islower() for n in broken)
    if len(broken) < max(MIN_BREAKS, MIN_WRAPPED * len(inside)) or inner < MIN_INNER * len(broken):
        return text, 0
    whole = []
    for n, line in enumerate(lines):
        if n - 1 in broken:
            hyphen = whole[-1].endswith("-") and not whole[-1].endswith("--")
            whole[-1] += ("" if hyphen else " ") + line.strip()
        else:
            whole.append(line.rstrip() if n in broken else line)
    return "\n".join(whole), len(broken)
