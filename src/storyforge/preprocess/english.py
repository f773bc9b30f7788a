"""How sure it is that a text is English."""

from collections.abc import Sequence
from functools import cache

from py3langid.langid import MODEL_FILE, LanguageIdentifier

# Words hardly any English sentence does without, and that no other language of its script has in number.
# Early modern ones too: the plays are English.
FUNCTION_WORDS = frozenset(
    "the of and to in that it is was for with as his her she he they you at by be this had not are but from"
    " have or which were their my your our we them would there been what when who will if so"
    " thou thee thy hath doth i'll it's don't i'm".split()
)
PLAINLY_ENGLISH = 0.25  # share of function words; English prose has 0.35 to 0.5, French or German below 0.05
ENOUGH = 2000  # characters for the classifier, which reads 0.25 MB a second


def english(text: str, words: Sequence[str]) -> float:
    """Probability from 0 to 1; 1 without asking the classifier where function words abound."""
    if words and sum(word in FUNCTION_WORDS for word in words) >= PLAINLY_ENGLISH * len(words):
        return 1.0
    language, probability = _classifier().classify(text[:ENOUGH])
    return float(probability) if language == "en" else 0.0


@cache
def _classifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
