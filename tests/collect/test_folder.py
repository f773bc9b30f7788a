"""One's own folder: every file is read, or named or counted with what to do; none ends in a traceback."""

import io
import json
import random
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from storyforge.collect import documents, folder, stage
from storyforge.collect.accounts import MOST_OF_A_PREMISE, REMEDIES, Reject, counted
from storyforge.core.engine_file import Engine
from storyforge.core.errors import UserError
from storyforge.core.files import read_jsonl
from storyforge.core.records import Story
from storyforge.preprocess import heldout

PROSE = "The café was shut. Nothing moved in the street, and the rain went on until it was late. " * 3
CURLY = "“It’s late,” she said – and meant it… He didn’t answer. " * 4
CZECH = "Když přišel domů, už svítalo. Žena seděla u stolu a mlčela. Řekl jí, že příští týden odjede. " * 4


class Own:
    """A folder of one's own, and what collect makes of it."""

    def __init__(self, root):
        self.root, self.raw = root / "my-stories", root / "raw"
        self.root.mkdir()
        self.raw.mkdir()
        self.max_reject_share = 1.0

    def put(self, name: str, content: bytes | str = "A story.") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def collect(self) -> dict:
        """The report of this source; `notes` has the lines for the terminal."""
        wanted = {"seed": 1, "max_reject_share": self.max_reject_share, "folder": {"stories": None}}
        report, self.notes = stage.collect(stage.CollectParams(**wanted), self.root, self.raw, Engine())
        return report["folder"]

    def stories(self) -> list[Story]:
        return list(read_jsonl(self.raw / "folder.jsonl", Story))

    def rejects(self) -> list[str]:
        return [str(reject) for reject in read_jsonl(self.raw / "rejects.jsonl", Reject)]

    def refused(self) -> str:
        with pytest.raises(UserError) as caught:
            self.collect()
        assert "\n" not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def own(tmp_path):
    return Own(tmp_path)


def zipped(files: dict[str, bytes | str]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return held.getvalue()


# --- which files


def test_files_of_kinds_that_are_not_read_are_named_with_what_to_do(own):
    own.put("a.txt")
    own.put("old.pdf")
    for number in range(11):
        own.put(f"{number}.pages")
    report = own.collect()
    line = "12 files were not read: .pages 11, .pdf 1: save them as .docx, .odt or .txt (a PDF as text)"
    assert report["files"] == {"read": 1, "not_read": {".pages": 11, ".pdf": 1}, "left_out": {}}
    assert (report["unread"], own.notes) == (line, [f"folder: {line}"])


def test_folder_of_nothing_that_is_read_says_what_is_there(own):
    own.put("book.pages")
    assert "no story: 1 file was not read: .pages 1: save them as .docx, .odt or .txt" in own.refused()


def test_lock_hidden_and_readme_files_and_pictures_are_left_out_and_counted(own):
    own.put("a.txt")
    own.put(".gitkeep", "")  # the repository's own is nobody's file
    for name in (
        "~$a.docx",
        ".#a.txt",
        ".DS_Store",
        ".git/b.txt",
        "README.md",
        "readme.txt",
        "images/image1.png",
    ):
        own.put(name)
    report = own.collect()
    assert [story.meta["file"] for story in own.stories()] == ["a.txt"]
    assert report["files"]["left_out"] == {"hidden": 3, "lock": 1, "picture": 1, "readme": 2}
    assert own.notes == ["folder: left out: hidden 3, lock 1, picture 1, readme 2"]


def test_a_project_that_is_a_folder_counts_as_one_file(own):
    own.put("a.txt")
    for name in (
        "Novel.scriv/Files/Data/1/content.rtf",
        "Novel.scriv/Files/Data/2/notes.rtf",
        "b.pages/Index.zip",
    ):
        own.put(name, "{\\rtf1 x}")
    own.put("c.zip", zipped({"New.scriv/Files/1.rtf": "x", "d.txt": "Another."}))
    assert own.collect()["files"] == {"read": 2, "not_read": {".pages": 1, ".scriv": 2}, "left_out": {}}
    assert "(compile a Scrivener project)" in own.notes[0]


def test_link_to_a_folder_is_named_and_a_loop_is_not_followed(own, tmp_path):
    own.put("a.txt")
    (own.root / "loop").symlink_to(own.root)
    report = own.collect()
    assert report["files"]["not_read"] == {"link to a folder (loop)": 1}
    assert report["unread"].endswith("copy the linked folder itself")


def test_documents_without_the_reader_name_the_command(own, monkeypatch):
    own.put("a.docx")
    own.put("b.rtf")
    monkeypatch.setattr(documents, "pandoc", lambda: None)
    said = own.refused()
    assert said.startswith("files that need pandoc: .docx 1, .rtf 1: ")
    assert "pip install -r requirements-documents.txt" in said


def test_document_becomes_a_story_with_its_title_and_author(own):
    own.put(
        "a.html",
        "<html><head><title>The Well</title></head><body><h1>The Well</h1><p>By Ann Lee</p><p>Rain.</p>",
    )
    own.collect()
    (story,) = own.stories()
    assert (story.text, story.group, story.meta["title"]) == ("Rain.", "the well", "The Well")
    assert story.meta["author"] == "Ann Lee"


def test_each_kind_of_file_that_is_not_read_has_its_own_remedy(own, tmp_path):
    own.put("a.txt")
    own.put("mine.zip", zipped({"b.txt": "Another.", "inner.zip": "x"}))
    assert own.collect()["unread"] == "1 file was not read: .zip 1: unpack a .zip that is inside another"
    (own.root / "elsewhere").symlink_to(tmp_path)
    own.put("old.pdf")
    assert own.collect()["unread"].endswith(
        ": save them as .docx, .odt or .txt (a PDF as text); unpack a .zip that is inside another; "
        "copy the linked folder itself"
    )


@pytest.mark.parametrize("name", ["a.txt", "a.docx", "a.html", "a.rtf", "a.jsonl", "a.json", "a.csv"])
def test_empty_file_is_told(name, own):
    own.put("good.txt")
    own.put(name, "")
    own.collect()
    assert own.rejects() == [f"{name} is empty: fill it in or remove it"]


@pytest.mark.parametrize(
    ("name", "content"), [("a.json", "[]"), ("a.csv", "text,title\n"), ("a.jsonl", "\n")]
)
def test_file_without_a_row_is_told(name, content, own):
    own.put("good.txt")
    own.put(name, content)
    own.collect()
    assert own.rejects() == [f"{name} is empty: fill it in or remove it"]


def test_folder_of_an_empty_file_alone_says_so(own):
    own.put("a.txt", "")
    own.max_reject_share = 0.2
    assert own.refused() == "folder: no story in 1 record: a.txt is empty: fill it in or remove it"


def test_archive_without_a_file_is_told(own):
    own.put("good.txt")
    own.put("a.zip", zipped({}))
    own.collect()
    assert own.rejects() == ["a.zip holds no file: pack it again or remove it"]


@pytest.mark.parametrize("name", ["a.zip", "a.docx"])
def test_damaged_file_is_told_in_a_writers_words(name, own):
    own.put("good.txt")
    own.put(name, "no archive")
    own.collect()
    assert own.rejects()[0].startswith(f"{name} is damaged (not a whole ") and "Zip" not in own.rejects()[0]


def test_one_is_told_as_one():
    assert [counted(n, "story", "stories") for n in (0, 1, 1200)] == ["0 stories", "1 story", "1,200 stories"]
    assert counted(1, "work") == "1 work" and counted(2, "work") == "2 works"


def test_copies_that_are_left_out_are_told(own):
    for name in "abc":
        own.put(f"{name}.txt", PROSE)
    own.collect()
    assert own.notes == ["folder: left out: 2 stories that repeat another word for word"]


@pytest.mark.parametrize(("rows", "works"), [(3, 1), (12, 12)])
def test_prompt_of_many_rows_is_an_instruction_and_groups_nothing(rows, works, own):
    assert MOST_OF_A_PREMISE == heldout.MOST_OF_A_PREMISE
    made = [{"prompt": "Write a short story.", "text": f"Story {n}."} for n in range(rows)]
    own.put("a.json", json.dumps(made))
    assert own.collect()["works"] == works


@pytest.mark.parametrize("packed", [False, True])
def test_chapters_stand_in_the_order_of_their_numbers(packed, own):
    chapters = {f"novel/Chapter {n}.txt": f"The text of number {n}." for n in range(1, 13)}
    if packed:
        own.put("novel.zip", zipped(dict(reversed(chapters.items()))))
    for name, text in {} if packed else chapters.items():
        own.put(name, text)
    assert own.collect()["works"] == 1
    assert [story.text for story in own.stories()] == list(chapters.values())


def page(title: str, body: str) -> str:
    head = f"<html><head><title>{title} – Ann’s Site</title></head><body>"
    site = "<header><h1>Ann’s Site</h1></header><nav><ul><li>Home</li></ul></nav>"
    return f"{head}<div>{site}{body}<aside>Read also</aside><footer><p>© Ann</p></footer></div></body></html>"


@pytest.mark.parametrize(
    "body",
    [
        "<article><header><h1>{}</h1><p>12 May</p></header><p>{}</p><form><p>Sign up</p></form></article>",
        "<main><h1>{}</h1><p>{}</p></main>",
        "<h1>{}</h1><p>{}</p>",
        "<div><h2>{}</h2><p>{}</p></div>",
    ],
    ids=["article", "main", "heading", "title"],
)
def test_pages_of_one_site_are_works_of_their_own_without_its_frame(body, own):
    stories = {"The Well": "Rain fell on the yard.", "The Road": "Dust lay on the road."}
    for number, (title, text) in enumerate(stories.items()):
        own.put(f"{number}.html", page(title, body.format(title, text)))
    assert own.collect()["works"] == 2
    assert [story.text for story in own.stories()] == list(stories.values())
    titles = [story.meta["title"].removesuffix(" – Ann’s Site") for story in own.stories()]
    assert titles == list(stories)


# --- archives


def test_archive_is_read_as_the_folder_it_was_made_of(own):
    rows = json.dumps({"text": "A row."}) + "\n"
    inside = {
        "Mine/a.txt": "One.",
        "Mine/novel/1.md": "Two.",
        "Mine/novel/2.md": "Three.",
        "Mine/rows.jsonl": rows,
    }
    own.put(
        "mine.zip", zipped({**inside, "__MACOSX/Mine/._a.txt": "x", "Mine/b.pages": "x", "Mine/c.zip": "x"})
    )
    report = own.collect()
    found = {(story.meta["file"], story.text): story.group for story in own.stories()}
    assert list(found) == [
        ("mine.zip/a.txt", "One."),
        ("mine.zip/novel/1.md", "Two."),
        ("mine.zip/novel/2.md", "Three."),
        ("mine.zip/rows.jsonl", "A row."),
    ]
    assert found["mine.zip/novel/1.md", "Two."] == found["mine.zip/novel/2.md", "Three."]
    assert report["works"] == 3 and list(report["sha256"]) == ["mine.zip"]
    assert report["files"]["not_read"] == {".pages": 1, ".zip": 1}


def encrypted() -> bytes:
    data = bytearray(zipped({"a.txt": "One."}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no archive", "damaged"),
        (zipped({"a.txt": "One."})[:-30], "damaged"),
        (zipped({"../a.txt": "One."}), "damaged"),
        (zipped({"a.txt": bytes(50 << 20)}), "too_long"),
        (encrypted(), "encrypted"),
    ],
    ids=["none", "cut", "leads out", "bomb", "encrypted"],
)
def test_hostile_archive_is_one_counted_reject(content, reason, own):
    own.put("good.txt")
    own.put("bad.zip", content)
    assert own.collect()["records"]["rejected"] == {reason: 1}
    assert own.rejects()[0].startswith("bad.zip ")


# --- encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252", "mac_roman"])
@pytest.mark.parametrize("text", [PROSE, CURLY])
def test_text_is_read_whatever_its_encoding_where_no_doubt_is_left(text, encoding, own):
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    own.put("a.txt", mark + text.encode(encoding))
    own.collect()
    assert [story.text for story in own.stories()] == [text]


WESTERN = {
    "pounds": "She came home late, and the rain went on. It cost £5. Nobody said a word about it again.",
    "greeting": "He turned round. “Señor,” she said, and it was all that she said at the hotel that night.",
    "loans": "Naïve, déjà vu. She had been there before and would be there again, as she told him.",
    "French": "Il était une fois, où l’été ne finissait jamais, une vieille sans frère ni sœur. « Ça va ? »",
    "Spanish": "¿Quién está ahí?, preguntó la niña. —Nadie —dijo el señor cerrando. Mañana será otro día.",
    "German": "„Müller“, sagte er, „das größte Übel ist die Müdigkeit.“ Über den Dächern lag Schnee.",
    "Portuguese": "A avó não dormia. Às vezes contava histórias de três irmãos e do pão que ninguém queria.",
    "Swedish": "Hon gick över ån när det började snöa. Där stod han och väntade på våren.",
}


@pytest.mark.parametrize("language", WESTERN)
def test_text_of_a_western_writer_is_read_in_windows_1252(language, own):
    own.put("a.txt", WESTERN[language].encode("cp1252"))
    own.collect()
    assert [story.text for story in own.stories()] == [WESTERN[language]]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1250", "Když přišel domů, už svítalo. Žena seděla u stolu a mlčela. Řekl jí, že odjede."),
        ("cp1250", "Kiedy wrócił do domu, już świtało. Żona siedziała przy stole i milczała."),
        ("cp1250", "Amikor hazaért, már világosodott. Később őszintén beszéltek a gyönyörű időről."),
        ("cp1250", "Când a ajuns acasă, se lumina deja. Soţia lui stătea la masă şi tăcea."),
        ("cp1250", "He listened to Dvořák and Janáček all night, and in the morning he still did."),
        ("cp1254", "Eve döndüğünde şafak söküyordu. Karısı masada oturmuş, susuyordu. Işık yandı."),
        ("mac_roman", "“Hello,” she said, and he did not answer her. The señor was gone."),
    ],
)
def test_text_of_another_encoding_is_rejected_rather_than_garbled(encoding, text, own):
    own.put("good.txt", PROSE)
    own.put("a.txt", text.encode(encoding))
    own.collect()
    assert {story.text for story in own.stories()} <= {PROSE, text}


@pytest.mark.parametrize("encoding", ["cp1251", "koi8_r"])
def test_russian_is_read_in_its_old_encodings(encoding, own):
    text = "Когда он вернулся домой, уже светало. Жена сидела за столом и молчала. " * 6
    own.put("a.txt", text.encode(encoding))
    own.collect()
    assert own.stories()[0].text == text


def test_text_of_doubtful_encoding_is_rejected_with_what_it_looks_like(own):
    own.put("good.txt", PROSE)
    own.put("s09.txt", CZECH.encode("cp1250"))
    own.collect()
    assert own.rejects() == ["s09.txt is not UTF-8 (looks like Windows-1250): save it as UTF-8"]
    assert own.notes[0] == f"folder: rejected: {own.rejects()[0]}"


def test_lines_in_utf_16_are_read(own):
    own.put("a.jsonl", '{"text": "One – two."}\n{"text": "Three."}\n'.encode("utf-16"))
    own.collect()
    assert [story.text for story in own.stories()] == ["One – two.", "Three."]


# --- rows


def test_tables_and_lists_give_their_rows(own):
    own.put("a.json", json.dumps([{"instruction": "Begin.", "input": "", "output": "One."}]))
    own.put("b.csv", 'prompt;story\r\n"Begin; again";"Two,\nthree."\r\n'.encode("utf-8-sig"))
    own.put("c.ndjson", '{"prompt": "Go.", "completion": "Four."}\n')
    own.collect()
    assert [(story.prompt, story.text) for story in own.stories()] == [
        ("Begin.", "One."),
        ("Begin; again", "Two,\nthree."),
        ("Go.", "Four."),
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", '[{"text": "One."}', "not_json"),
        ("a.json", "7", "not_an_object"),
        ("a.json", '{"text": "\\ud800"}', "lone_surrogate"),
        ("a.json", "[" * 100_000, "too_deep"),
        ("a.csv", 'text\n"One."\n"Two', "not_csv"),
        ("a.csv", "text\nOne, two.\n", "not_csv"),
        ("a.csv", "text,text\na,b\n", "duplicate_key"),
        ("a.csv", "text\na\0b\n", "nul"),
        ("a.csv", "body,n\nOne.,1\n", "no_text"),
    ],
)
def test_broken_rows_are_a_line_that_names_the_file(name, content, reason, own):
    own.put("good.txt")
    own.put(name, content)
    assert own.collect()["records"]["rejected"] == {reason: 1}
    (line,) = own.rejects()
    assert line.startswith(f"{name} " if "record" not in line else f"{name}, record ") and ": " in line
    if reason == "no_text":
        assert "its keys are body, n; wanted are text or story;" in line


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.jsonl", "a.zip", "a.txt", "a.fountain", "a.md"])
def test_damaged_file_is_read_or_has_a_reason(name, own):
    """Seeded mutations: whatever comes, every record is a story or a reject with a remedy."""
    rows = [{"text": f"Story {n} – “late”.", "prompt": "Begin.", "title": str(n)} for n in range(5)]
    whole = {
        "a.json": json.dumps(rows),
        "a.csv": "text,prompt\n" + "".join(f'"{row["text"]}",Begin.\n' for row in rows),
        "a.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "a.zip": zipped({f"{n}.txt": row["text"] for n, row in enumerate(rows)}),
    }.get(name, f"---\ntitle: [a]\n---\n# The Sea\n\n{PROSE}\n\nCHAPTER I.\n\n[[x]] /* y */ {CURLY}\n")
    whole = whole if isinstance(whole, bytes) else whole.encode()
    rng = random.Random(name)
    own.put("good.txt")
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 3, 30))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        own.put(name, bytes(rng.choice((data, data[: rng.randrange(len(data))]))))
        report = own.collect()
        assert set(report["records"]["rejected"]) <= {*REMEDIES, "text_not_text", "prompt_not_text"}
        assert "good" in {story.group for story in own.stories()}


# --- what is rejected


def test_share_of_rejects_is_of_the_bytes(own):
    """One novel among five short stories is a sixth of the records and most of the text."""
    own.max_reject_share = 0.2
    for number in range(5):
        own.put(f"{number}.txt", f"Short story {number}. " * 20)
    own.put("novel.txt", b"\xff\xfe\xff" + b"a" * 99_998)
    said = own.refused()
    assert said.startswith(
        "folder: 1 of 6 records, 99% of the bytes, cannot be read, and collect.max_reject_share"
    )
    assert "novel.txt is damaged (its mark says UTF-16-LE): save it again" in said and "raise" not in said


def test_short_reject_beside_a_novel_is_told_and_does_not_stop(own):
    own.max_reject_share = 0.2
    own.put("novel.txt", PROSE * 100)
    own.put("a.txt", "")
    own.collect()
    assert own.notes[0] == "folder: rejected: a.txt is empty: fill it in or remove it"


def test_what_is_taken_off_is_told(own):
    own.put("a.txt", "The Well\n\nCHAPTER I.\n\nHe ran.\n\nCHAPTER II.\n\nShe slept.\n")
    assert own.collect()["taken_off"] == {"chapter_headings": 2, "titles": 1}
    assert own.notes == ["folder: taken off the stories: chapter headings 2, titles 1"]
    assert own.stories()[0].meta["taken_off"] == {"chapter_headings": 2, "titles": 1}


def test_screenplay_says_that_it_is_drama(own):
    own.put("a.fountain", "INT. KITCHEN - NIGHT\n\nANN\nWho?\n")
    own.collect()
    assert own.stories()[0].meta["form"] == "drama"


def test_every_limit_of_a_file_is_told(own, monkeypatch):
    monkeypatch.setattr(folder, "MAX_FILE_BYTES", 100)
    own.put("good.txt")
    own.put("a.json", json.dumps([{"text": "x" * 100}]))
    assert own.collect()["records"]["rejected"] == {"too_long": 1}
    assert own.rejects() == ["a.json is too large: cut it into several files, or save rows as .jsonl"]


# --- the stories that come with the repository


EXAMPLES = Path(__file__).parents[2] / "examples" / "my-stories"


def test_examples_are_read_whole_as_thirteen_works(own):
    shutil.copytree(EXAMPLES, own.root, dirs_exist_ok=True)
    report = own.collect()
    assert (report["stories"], report["works"], report["unread"]) == (17, 13, "")
    assert (report["records"]["rejected"], report["files"]["left_out"]) == ({}, {"readme": 1})
    groups = Counter(story.group for story in own.stories())
    assert {group for group, count in groups.items() if count > 1} == {"night bus", "salt ferry"}
    assert all(250 <= len(story.text.split()) <= 700 for story in own.stories())
    assert all(
        story.text[0].isupper() or story.meta["title"].startswith("Letters") for story in own.stories()
    )
    assert not any(
        story.text.startswith(("Chapter", story.meta.get("title", "#"))) for story in own.stories()
    )


def test_examples_are_in_the_public_domain_and_say_so():
    assert "CC0 1.0" in (EXAMPLES / "README.md").read_text(encoding="utf-8")
