"""Which language a text is in, and how long it is as a language model reads it."""

from collections.abc import Callable, Sequence
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from storyforge.core.words import words

# Words hardly any English sentence does without, and that no other language of its script has in number.
# Early modern ones too: the plays are English.
FUNCTION_WORDS = frozenset(
    "the of and to in that it is was for with as his her she he they you at by be this had not are but from"
    " have or which were their my your our we them would there been what when who will if so"
    " thou thee thy hath doth i'll it's don't i'm".split()
)
PLAINLY_ENGLISH = 0.25  # share of function words; English prose has 0.35 to 0.5, French or German below 0.05
ENOUGH = 2000  # characters for the classifier, which reads 0.25 MB a second
# An English word is 1.3 SmolLM2 tokens. Elsewhere words are no measure: a Finnish one is 3 tokens, a Russian
# one 4.5, a Chinese sentence one "word". A UTF-8 byte is 0.3 tokens (French) to 0.75 (Korean).
BYTES_A_WORD = 2.5

Measure = Callable[[str], float]


def english(text: str, said: Sequence[str]) -> float:
    """Probability from 0 to 1; 1 without asking the classifier where function words abound."""
    if said and _plainly_english(said):
        return 1.0
    language, probability = _classifier().classify(text[:ENOUGH])
    return float(probability) if language == "en" else 0.0


def language(text: str) -> str:
    """Its code in ISO 639-1, by its beginning."""
    beginning = text[:ENOUGH]
    return "en" if _plainly_english(words(beginning)) else _classifier().classify(beginning)[0]


def _plainly_english(said: Sequence[str]) -> bool:
    return sum(word in FUNCTION_WORDS for word in said) >= PLAINLY_ENGLISH * len(said)


@cache
def _classifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def length_in(language: str) -> Measure:
    """A function that gives a text's length in English words, or in as many tokens as those have."""
    return word_count if language == "en" else _encoded_length


def word_count(text: str) -> int:
    return len(text.split())


def _encoded_length(text: str) -> float:
    return len(text.encode()) / BYTES_A_WORD
