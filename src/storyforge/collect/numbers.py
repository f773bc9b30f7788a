"""Numbers as chapters have them: in figures, in words and in Roman letters."""

ONES = "one two three four five six seven eight nine".split()
TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
VALUES = {word: value for value, word in enumerate([*ONES, *TEENS], 1)}
VALUES |= {word: value for value, word in zip(range(20, 100, 10), TENS, strict=True)}
# Patterns; the first is for any case. A longer word comes first: "seventeen" begins as "seven" does.
COUNTED = rf"(?:(?:{'|'.join(TENS)})(?:[ _-]?(?:{'|'.join(ONES)}))?|{'|'.join([*TEENS, *ONES])})"
ROMAN = "(?=[IVXLC])C{0,3}(?:X[LC]|L?X{0,3})(?:I[XV]|V?I{0,3})"  # to 399
LETTERS = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}


def value(number: str) -> int:
    """Of a number in digits, or one that COUNTED or ROMAN matches."""
    if number.isdecimal():
        return int(number)
    if set(number) <= set(LETTERS):
        values = [LETTERS[letter] for letter in number]
        return sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True))
    word = number.casefold()
    tens = next((tens for tens in TENS if word.startswith(tens)), "")
    return VALUES.get(tens, 0) + VALUES.get(word.removeprefix(tens).lstrip(" _-"), 0)
