"""The checks by name: how well a text keeps a rule that a machine can see, counted per opportunity.

A check says whether a rule was kept, not whether a text is good. To add one: a pure function in drama.py or
texts.py, linear in the text, and its name here; two texts that differ in its rule alone in tests/principles.
"""

from collections.abc import Callable

from storyforge.principles import drama, texts
from storyforge.principles.corpus import Corpus
from storyforge.principles.findings import Finding

# Prompt, text, whether the writer ended it itself, facts of the corpus → None without an opportunity
Check = Callable[[str, str, bool, Corpus], Finding | None]

CHECKS: dict[str, Check] = {
    "asked_words": texts.asked_words,
    "speakers": drama.speakers,
    "headings": drama.headings,
    "turns": drama.turns,
    "form": drama.form,
    "length": texts.length,
    "viewpoint": texts.viewpoint,
    "names": texts.names,
    "ends": texts.ends,
    "said_once": texts.said_once,
    "known_words": texts.known_words,
    "own_words": texts.own_words,
    "no_meta": texts.no_meta,
    "safe": texts.safe,
}
