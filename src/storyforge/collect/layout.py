"""Titles, chapter headings and line breaks of a plain text, told from its prose."""

import re

from storyforge.collect.numbers import COUNTED, ROMAN, value

BYLINE = re.compile(
    r"^\W{0,3}(?:written |a (?:short )?story )?by:? +(.{2,60}?)[\s*_)\]]{0,3}$", re.IGNORECASE
)
MAX_NAME = 4  # words of a name, particles aside
PARTICLES = set("de del della der den di da do dos du la le van von ten ter bin ibn al el".split())
DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
TIMES = "dawn|day|noon|midday|dusk|night|nightfall|midnight|morning|evening|sunset|sunrise|then|now"
MAX_TITLE, MAX_TITLE_WORDS = 80, 12
MAX_PLACE_WORDS = 2
# What may be small in "The Lamp in Number Nine".
SMALL = set("a an the of in on at to by and or for but nor as from with into".split()) | PARTICLES
# "12 March", "London 1943", "Two Weeks Later", "Dear Anna", "FADE IN", "Mr. Lee": the story's, or in doubt.
NO_TITLE = re.compile(
    rf"[\d.,;:!?…–—]|\b(?:{DAYS}|{MONTHS})\b|\b(?:later|earlier|ago)$|^(?:my )?(?:dear|dearest)\b"
    r"|^(?:to|for|act|scene|fade|cut|enter|exit|exeunt)\b",
    re.IGNORECASE,
)
# In scripts without spaces each character counts as a word.
WORD = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]|[^\W_]+(?:['’][^\W_]+)*"
)
MAX_HEADING = 200  # characters
MAX_NUMBERED = 300  # chapters; more numbers are a list
ORDER = "the (?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last)"
NUMERAL = rf"(?:\d{{1,3}}|(?-i:{ROMAN})|{COUNTED}|{ORDER})"
# "CHAPTER I. The Storm", "Chapter 3 The Storm", "Epilogue"; not "Part two. He laughed.", "Book the tickets."
HEADING = re.compile(
    rf"^[*_\s]*(?:(?:(chapter|kapitel|chapitre|cap[ií]tulo|capitolo|глава)|part|book|volume)\s+{NUMERAL}"
    r"(?:\s*[.:)–—-](?:\s*|(?(1).{0,70}|.{0,70}(?<![.!?,;”\"])))|(?-i:\s+[A-ZÀ-ÞЀ-Я“‘\"'].{0,70}(?<![.!?,;”\"]))|)"
    r"|第\s*[\d〇零一二三四五六七八九十百]{1,6}\s*章(?:[\s:：][^。！？，、]{0,30})?"
    r"|(?:prologue|epilogue|interlude)(?:[.:–—-].{0,40})?)[*_\s]*$",
    re.IGNORECASE,
)
MARKED = re.compile(r"^#{1,6}[ \t]+(?=.*\w)(?!(?:ACT|SCENE|INT|EXT)\b)(.*?)[ \t#]*$")
BARE = re.compile(rf"^[ \t]*(\d{{1,3}}|{ROMAN})\.?[ \t]*$")
SCENE = re.compile(r"^(?:INT|EXT|EST|INT\./EXT|I/E)[. ]", re.IGNORECASE)
MIN_WIDTH, MAX_WIDTH, SLACK = 45, 100, 5  # characters of a line that a program has broken
MIN_INNER = 0.5  # of those, before a small letter: else each line is a sentence or a speech of its own
MIN_BREAKS = 3  # fewer may be chance
MIN_WRAPPED = 0.7  # of the line breaks inside paragraphs: verse has few that fall where a program would break


def without_headings(text: str, markdown: bool, stem: str) -> tuple[str, str | None, str | None, int]:
    """The text without its title and headings; title, author, and how many headings there were.

    In a plain text `# milk and eggs` is no heading. What may be the story's stays.
    """
    lines = text.strip("\n").split("\n")
    title, author, used = _title(lines, markdown, stem)
    lines = lines[used:]
    blank = [not line.strip() for line in lines]
    short = [(n, line) for n, line in enumerate(lines) if len(line) <= MAX_HEADING]
    marked = {
        n for n, line in short if (found := MARKED.match(line)) and (markdown or HEADING.match(found[1]))
    }
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


def _title(lines: list[str], markdown: bool, stem: str) -> tuple[str | None, str | None, int]:
    """Title, author, and how many lines they take.

    A first line is a title where it is marked as one or a by-line follows; else it must stand alone and be in
    title case; one of a word or two, which may be a place ("New York"), needs an article, its file's name, or
    a chapter's heading after it.
    """
    first = lines[0].strip()
    if len(first) > MAX_HEADING:
        return None, None, 0
    underlined = len(lines) > 1 and re.fullmatch(r"={3,} *", lines[1]) and _like_a_title(first)
    marked = re.match(r"#[ \t]+(.*?)[ \t#]*$", first)
    title = (marked[1] if marked else first).strip("*_ ")
    sure = bool(underlined or marked and markdown)
    if not title or HEADING.match(title) or BARE.match(title):
        return None, None, 0
    used = 2 if underlined else 1
    after = next((n for n in range(used, len(lines)) if lines[n].strip()), None)
    if after is None:
        return None, None, 0
    if after - used <= 2 and (sure or _may_have_author(title)) and (author := _byline(lines, after)):
        return title, author, after + 1
    if not (sure or _like_a_title(title)):
        return None, None, 0
    again = any(line.strip() == first for line in lines[1:])  # a speaker's name, a refrain
    alone = after > used and not again and _in_title_case(title)
    content = [word for word in WORD.findall(title) if word.casefold() not in SMALL]
    told = re.match(r"(?:the|an?)\b", title, re.IGNORECASE) or _letters(title) in _letters(stem)
    author = _author(lines, after)
    enough = told or author or len(content) > MAX_PLACE_WORDS or HEADING.match(lines[after].strip())
    if not (sure or alone and enough):
        return None, None, 0
    return title, author, after + 1 if author else used


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _may_have_author(line: str) -> bool:
    """No sentence, and short enough to stand above "by Ann Lee": "untitled", "Story (final)"."""
    return len(line) <= MAX_TITLE and len(WORD.findall(line)) <= MAX_TITLE_WORDS and line[-1] not in '.,;:"”'


def _author(lines: list[str], n: int) -> str | None:
    """A name alone between a title and the first chapter's heading: "THE WELL", "Ann Lee", "Chapter One"."""
    after = next((line.strip() for line in lines[n + 1 :] if line.strip()), "")
    name = lines[n].strip()
    like = len(name.split()) > 1 and _like_a_name(name.split()) and not HEADING.match(name)
    return name if like and HEADING.match(after) else None


def _byline(lines: list[str], n: int) -> str | None:
    """The names in "by Ann Lee", alone on its line above the story; not "By noon the rain had stopped."."""
    found = BYLINE.match(lines[n].strip())
    if not found or n + 1 >= len(lines) or lines[n + 1].strip() or not any(map(str.strip, lines[n + 1 :])):
        return None
    names = [name.split() for name in re.split(r" +(?:and|&) +", found[1].strip(), flags=re.IGNORECASE)]
    return found[1].strip() if len(names) <= 2 and all(map(_like_a_name, names)) else None


def _like_a_name(words: list[str]) -> bool:
    """One to four words with a capital, or initials: "J. R. Roe", "Ann van Lee"; not "Monday", "Morning"."""
    proper = [word for word in words if word not in PARTICLES]
    return (
        0 < len(proper) <= MAX_NAME
        and not re.fullmatch(rf"(?:the|{TIMES}|{DAYS}|{MONTHS})", proper[0], re.IGNORECASE)
        and all(
            re.fullmatch(r"(?:[^\W\d_]\.-?)+|(?:Jr|Sr|St)\.|[^\W\d_]+(?:['’-][^\W\d_]+)*", word)
            for word in proper
        )
        and not any(word[0].islower() for word in proper)
    )


def _like_a_title(line: str) -> bool:
    """No sentence, no speech, no scene heading: "The Well", "WHO GOES THERE?"; not "She ran.", "Stop!"."""
    words = WORD.findall(line)
    if (
        not words
        or len(line) > MAX_TITLE
        or len(words) > MAX_TITLE_WORDS
        or not re.search(r"[^\W\d_]", line)
        or line[0] in "#\"'“‘«‹„—–-([（【「『《〈"
        or line[-1] in '.,;:…"”»›—–。！？।؟۔」』》）)]，、'
        or SCENE.match(line)
    ):
        return False
    if line[-1] in "?!":
        return len(words) > 2 and not any(word[0].islower() for word in words if len(word) > 3)
    return not words[0][0].islower()


def _in_title_case(line: str) -> bool:
    """Capitals where a sentence has none: "Night Bus", "SNOW INSPECTION"; not "Nobody came", "London"."""
    if NO_TITLE.search(line):
        return False
    first, *rest = WORD.findall(line)
    rest = [word for word in rest if word not in SMALL]
    return line.isupper() or bool(rest) and first[0].isupper() and all(word[0].isupper() for word in rest)


def _numbered(lines: list[str], blank: list[bool]) -> set[int]:
    """Lines that are numbers alone, where they count from one; one number alone may be anything."""
    found = [(n, match[1]) for n, line in enumerate(lines) if (match := BARE.match(line))]
    found = [
        (n, each) for n, each in found if (n == 0 or blank[n - 1]) and (n + 1 == len(lines) or blank[n + 1])
    ]
    if len(found) > MAX_NUMBERED:
        return set()
    one_kind = len({each.isdecimal() for _, each in found}) == 1
    counts = [value(each) for _, each in found] == list(range(1, len(found) + 1))
    return {n for n, _ in found} if len(found) > 1 and one_kind and counts else set()


def joined(text: str) -> tuple[str, int]:
    """Paragraphs that a program broke into lines of one width, a line each; and how many breaks went.

    Verse, speeches and lists stay: few of their lines end where the next word would not have fitted, or most
    begin with a capital.
    """
    lines = text.split("\n")
    inside = [
        n
        for n in range(len(lines) - 1)
        if lines[n].strip() and lines[n + 1].strip() and not re.match(r"\t|\s\s", lines[n + 1])
    ]  # an indented line begins a paragraph, or is verse
    lengths = sorted(len(lines[n].rstrip()) for n in inside)
    if not lengths or not MIN_WIDTH <= (width := lengths[int(0.98 * (len(lengths) - 1))]) <= MAX_WIDTH:
        return text, 0

    def wrapped(n: int) -> bool:
        this, after = lines[n].rstrip(), lines[n + 1]
        full = len(this) + 1 + len(after.split()[0]) > width - SLACK
        return full and not lines[n].endswith("  ")

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
