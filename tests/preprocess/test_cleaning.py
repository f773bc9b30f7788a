"""Encoding, control tokens, white space and tokens are put right, twice as once."""

import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preprocess.test_filters import STRICT

from storyforge.core.records import Story
from storyforge.core.words import words
from storyforge.preprocess import reddit
from storyforge.preprocess.cleaning import (
    CONTROL_TOKEN,
    HARMLESS,
    TooCostly,
    detokenised,
    laid_out,
    repaired,
)
from storyforge.preprocess.drafts import Draft, Profile, drafts
from storyforge.preprocess.filters import judged

# Characters that faults are made of, so that random text meets the rules.
MESS = (
    st.text(st.sampled_from("aé â€œ™\x9d\x85\u200b\ufeff&amp;lt#60 <|im_end>[INST/]s\n\t\u0301Ã\x80"))
    | st.text()
)


@pytest.mark.parametrize(
    ("damaged", "meant"),
    [
        ("She said, â€œHello, itâ€™s me!â€\x9d", "She said, “Hello, it’s me!”"),
        ("She said, â€œHello!â€ and left.", "She said, “Hello!” and left."),  # the lost byte
        ("â€œHelloâ€\nâ€œYouâ€", "“Hello”\n“You”"),
        ("a noiseâ€”it was the bug", "a noise—it was the bug"),
        ("a cafÃ© in Paris", "a café in Paris"),
        ("cafe\u0301", "café"),
        ("zero\u200bwidth\ufeff and\x00 null", "zerowidth and null"),
        ("fish &amp; chips, & nbsp; &lt;3", "fish & chips, <3"),
        ("one  two\t three \r\n\r\n\r\n\r\nfour ", "one two three\n\nfour"),
        ("&frac12; &#8212; &NotAnEntity; & mdash ; &#x41;", "½ — &NotAnEntity; — A"),
        ("\u200dzero\u200cwidth \u200d", "zerowidth"),
    ],
)
def test_damage_is_mended(damaged, meant):
    assert repaired(damaged) == meant


@pytest.mark.parametrize(
    "innocent",
    [
        "“Curly quotes”, ‘single’ ones, and it’s fine — naïve façade, Camërhicht, déjà vu…",
        "She weighed 3 < 5 and 7 > 2; R&B [loud] and <whispers>.",
        "Âge, Ångström, Übermut.",
        "First line\nsecond line\n\nNew paragraph.",
        "I sent letters & notes; R&D; fish &chips; Q& A; salt & image;",
        "“AMANHÔ, gritou. “AMANHÔ. „SPASSMAß“. CAFÉ’S. “MANHÃ…” NÃO—JÁ. «AMANHÃ»",
        "👩\u200d🚀 and ❤️\u200d🔥 and 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f.",
        "می\u200cخواهم بروم؛ क्\u200dष और क्\u200cष; അവന്\u200d പോയി.",
    ],
)
def test_innocent_text_stays(innocent):
    assert repaired(innocent) == innocent


CLEAN = {
    "English": "“It’s late,” she said—‘too late’, he thought… The naïve façade of a café.\n\n“No!”",
    "German": "„Wo ist der Spaß?“, fragte Jürgen. »Nirgends«, sagte sie – ‚nie‘. Übrigens: Öl & Größe.",
    "French": "«\u202fOù est-il\u202f?\u202f» — «\xa0Là\xa0»… L’été, ça ira\xa0; Noël, œuvre, forêt, Âge.",
    "Spanish": "—¿Mañana? —preguntó él—. ¡No! «Qué día», pensó: “así es la vida”.",
    "Portuguese": "“AMANHÔ, disse a mãe. — Não é à toa; “irmû e “pô ficam. Ações, lá, você.",
    "Italian": "«Perché no?» chiese Nicolò. “È già così”, rispose: l’età, più, laggiù…",
    "Polish": "— Gdzie żółw? — spytała. „Źdźbło”, odparł Łukasz; «nikt» – był świt. Święta noc.",
    "Czech": "„Příliš žluťoučký kůň,“ řekl. ‚Ďábelské ódy‘ úpěl… Škoda, že šel.",
    "Swedish": "”Åk hem”, sa Åsa. – På ön låg en ö. Älgen såg ’något’.",
    "Turkish": "“Işık nerede?” dedi İpek. ‘Şurada’, dedi ağabeyi; çok güzel, öyle—",
    "Romanian": "„Unde ești?”, întrebă Ștefan. «Acasă», țipă mâța – și plânse înăuntru.",
    "Hungarian": "– Hol az őz? – kérdezte Győző. „Űrhajó”, felelte »ő«; tűzön-vízen át.",
    "Russian": "— Где она? — спросил Пётр. «Ушла „домой“», — ответил ёж… Объезд, съел.",
    "Greek": "«Πού είναι;» ρώτησε ο Γιάννης. “Εδώ”, είπε· ήρθε η άνοιξη, ΐ και ΰ.",
    "Vietnamese": "“Mưa rồi,” bà nói. Đường về nhà dài lắm; những đứa trẻ ngủ ngoan.",
    "Arabic": "قالت: «أين أنت؟» فأجاب: “هنا، في البيت”؛ ثم صمتَ.",
    "Persian": "گفت: «نمی\u200cدانم؛ شاید خانه\u200cای باشد.» کتاب\u200cها را برداشت.",
    "Hebrew": "״איפה את?״ שאל צה״ל. „כאן”, ענתה – בְּרֵאשִׁית בָּרָא…",
    "Hindi": "“कहाँ हो?” उसने पूछा। ‘यहाँ’, क्\u200dया बात है—अच्छा।",
    "Thai": "“อยู่ที่ไหน” เธอถาม น้ำขึ้นให้รีบตัก…",
    "Chinese": "“你在哪里？”她问。‘这里’，他说……《夜》——完。\n「好，」他笑了。",
    "Japanese": "「どこ？」と彼女は言った。『ここ！』　彼は笑った……――終わり。",
    "Korean": "“어디야?” 그녀가 물었다. ‘여기’라고 그가 말했다… 《끝》",
}


@pytest.mark.parametrize("text", CLEAN.values(), ids=CLEAN)
def test_clean_text_of_any_language_stays(text):
    assert laid_out(text) == unicodedata.normalize("NFC", text)
    assert CONTROL_TOKEN.search(text) is None


VERSE = "The tide\n    comes in,\n        goes out.\n\nThe tide\n    stays."
SCRIPT = "INT. KITCHEN - NIGHT\n\nRain.\n\n            MARY\n        (low)\n    Who is there?\n\nNobody."


@pytest.mark.parametrize("text", [VERSE, SCRIPT])
def test_indentation_inside_a_paragraph_stays(text):
    assert laid_out(text) == text
    assert laid_out("\n".join("\t" + line for line in text.split("\n"))) == text


def test_indentation_of_paragraphs_is_typography():
    assert laid_out("    It rained.\n\n    It  rained on.") == "It rained.\n\nIt rained on."
    assert laid_out("It rained.\n It rained on.") == "It rained.\nIt rained on."  # a slip of the finger
    assert laid_out("  It rained.\n  It rained on.\n") == "It rained.\nIt rained on."


def test_the_tokens_of_a_chat_are_left_for_a_rule_to_find():
    assert laid_out("It</s> began.<|endoftext|> [INST]Go on.[/INST]") == "It began. [INST]Go on.[/INST]"


def test_words_between_bars_are_no_control_token():
    assert repaired("<| Level Up! |> He had won.") == "<| Level Up! |> He had won."


@pytest.mark.parametrize(
    "token",
    [
        "<|endoftext|>",
        "<|im_start|>",
        "<|eot_id|>",
        "< |im_end| >",
        "<｜end▁of▁sentence｜>",
        "</s>",
        "[/INST]",
    ]
    + ["<<SYS>>", "<start_of_turn>", "&lt;|im_end|&gt;", "&amp;lt;|im_end|&amp;gt;", "<|im\u200b_end|>"],
)
def test_a_control_token_is_taken_out(token):
    assert repaired(f"The end.{token} Of it.") == "The end. Of it."


def test_a_token_hidden_inside_another_does_not_come_out():
    assert repaired("Once<|im_<|im_end|>end|> more[INST[INST]]") == "Once more"


@given(MESS)
def test_any_text_is_repaired_once_and_for_all(text):
    once = repaired(text)
    assert repaired(once) == once


@given(MESS)
def test_no_control_token_and_no_odd_form_survives(text):
    once = repaired(text)
    assert not CONTROL_TOKEN.search(once)
    assert unicodedata.is_normalized("NFC", once)
    once.encode()
    once = laid_out(text)
    assert laid_out(once) == once
    assert not HARMLESS.search(once)


def nested(opening: str, closing: str) -> Callable[[int], str]:
    return lambda length: opening * (length // len(opening)) + "x" + closing * (length // len(closing))


# Each is repeated up to a length, or makes a text of a length; ¦ stands between them.
REPEATED = (
    "a¦A¦.¦*¦_¦[¦(¦-¦>¦#¦^¦\\¦1¦'¦\"¦`¦<¦&¦从¦\ufffd¦\u0301¦\U0001f1e6¦a-¦a'¦a@¦a\u200d¦👩\u200d¦&#¦<|¦"
    "~~a¦â€¦Ã\u0080¦Ãƒâ€šÃ‚¦http:¦www.¦&#x41;¦-LRB-¦[WP]¦&#99999¦ .¦ ,¦ 's¦ n't¦a 'b¦abc'd ¦``¦*a ¦"
    "*a\n¦_a ¦[a](¦[a](http¦[a](http(¦http: //a? ¦-- ¦the rain ¦the rain came down\n¦Edit: hope you ¦"
    "(hope you) \n¦my first ¦.\nA a¦[ a ¦[a] ¦(more inside ¦(more in a ¦> ¦# ¦sex six-year ¦sex\n\n¦"
    "a\n\n¦***\n¦x\n***\n¦It was so. ¦\"a\" ¦thanks for ¦{WP} ¦(WP) ¦'a ' ¦A. ¦to be cont¦- ¦"
    "[X-Post from ¦(nsfw ¦o' clock¦T*he ¦\na\n b"
).split("¦")
HOSTILE = [
    *(nested("<|", "|>"), nested("[INST", "]"), nested("</s", ">"), nested("<|im_", "end|>")),
    *(nested("&", "amp;"), nested("&#38;", "#38;"), lambda length: "e" + "\u0301\u0323" * (length // 2)),
    *(lambda length: " " * length + "x", lambda length: "\n" * length + "x"),
    *(lambda length: "<" + " " * length, *REPEATED),
]
WAYS = {
    "repaired": repaired,
    "laid_out": laid_out,
    "detokenised": detokenised,
    "story": reddit.story,
    "prompt": reddit.prompt_and_tags,
    "words": words,
    "rules": lambda text: judged(Draft("x", text, text, True, text, own_prompt=text), Profile(**STRICT)),
}


def cost(way: Callable, text: str) -> float:
    """Processor seconds, the least of a few tries."""
    tries = []
    while len(tries) < 3 and sum(tries) < 0.3:
        start = time.process_time()
        try:
            way(text)
        except TooCostly:
            pass
        tries.append(time.process_time() - start)
    return min(tries)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_work_grows_with_the_text_and_no_faster(way):
    """Four times the text: four times the work, and sixteen where a pattern is quadratic."""
    for hostile in HOSTILE:
        short, long = (
            hostile(length) if callable(hostile) else hostile * (length // len(hostile))
            for length in (4_000, 16_000)
        )
        assert any(
            (quadruple := cost(way, long)) < 0.01 or quadruple < 9 * cost(way, short) for _ in range(3)
        ), repr(short[:40])


@pytest.mark.parametrize("text", ["</s" * 13 + ">" * 13, "&" + "amp;" * 13 + "lt;", "e" + "\u0301" * 31])
def test_a_text_made_to_cost_too_much_is_refused(text):
    with pytest.raises(TooCostly):
        repaired(text)
    for form in ("prose", "reddit", "drama"):
        profile = Profile(**(STRICT | {"form": form}))
        story = Story("x", "own", "g", "A fair prompt.", text, "none")
        (draft,) = drafts(story, profile)
        assert next(iter(judged(draft, profile))) == "too_costly"


@pytest.mark.parametrize(
    ("tokens", "prose"),
    [
        ("`` Do n't , '' he said , `` I ca n't . ''", '"Don\'t," he said, "I can\'t."'),
        ("You 're late , and she 'd gone .", "You're late, and she'd gone."),
        (
            "I 'm gon na go ; he 's got ta stay and they can not .",
            "I'm gonna go; he's gotta stay and they cannot.",
        ),
        ("'T is true . And 't was cold .", "'Tis true. And 'twas cold."),
        (
            "The -LRB- old -RRB- house ( empty ) , at 5 % off , cost $ 20 .",
            "The (old) house (empty), at 5% off, cost $20.",
        ),
        ("Wait -- what ? I --", "Wait—what? I—"),
        (
            "It isn ’ t the world ’ s “ end ” , friends ’ house .",
            "It isn’t the world’s “end”, friends’ house.",
        ),
        ("The 'shadows ' are James ' own .", "The 'shadows' are James' own."),
        ("Well . . .", "Well..."),
    ],
)
def test_full_tokens(tokens, prose):
    assert detokenised(tokens) == prose


@pytest.mark.parametrize(
    ("halfway", "prose"),
    [
        ("`` Well --'' I wo n't.", '"Well—" I won\'t.'),
        ("What'' s your name?''", "What's your name?\""),
        ("an extinct'fight or flight' reaction", "an extinct 'fight or flight' reaction"),
        ("I said,'No.' and left", "I said, 'No.' and left"),
        ("I gave my life! ``, he said. `` Really?''", 'I gave my life!", he said. "Really?"'),
        ("`` The first speaks on.", '"The first speaks on.'),
        ("# 1 of # 2", "#1 of #2"),
        ("the year of'75, many of'em, and I read'Come", "the year of '75, many of 'em, and I read 'Come"),
        (
            "The'down' button read'5', the 9th'no', told me to'wait, look",
            "The 'down' button read '5', the 9th 'no', told me to 'wait, look",
        ),
        ("eight o' clock and nine o’ clock", "eight o'clock and nine o’clock"),
    ],
)
def test_half_way_tokens(halfway, prose):
    assert detokenised(halfway) == prose


@pytest.mark.parametrize(
    "prose",
    [
        "At five o'clock, ma'am, O'Brien's rock'n'roll played; the boys' house was dark.",
        'He said, "Don\'t!" and she said, "Why not?"',
        "Rand al'Thor, Qo'noS, D'Artagnan, y'all, the '90s, McDonald's, O'Neill's and rock 'n' roll.",
        "Can not only he, but she as well? She got me. A .45 lay there.",
        "A well-known, half-open door - and 1990-1995.",
    ],
)
def test_prose_stays(prose):
    assert detokenised(prose) == prose


@given(st.text(st.sampled_from("ab `'\"’“”.,-n't ()$\n")) | st.text())
def test_no_text_is_too_odd(text):
    detokenised(text)
