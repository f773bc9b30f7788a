import pytest

from storyforge.commands.chat import Chat, converse
from storyforge.commands.writers import Writers, named, sampling
from storyforge.core.errors import UserError
from storyforge.core.text import printable


@pytest.fixture
def chat(adapter):
    return Chat(Writers(named(None)), "tuned", sampling({}), adapter.parent)


def said(chat, *lines):
    return ["".join(chat.hear(line)) for line in lines]


def test_the_same_lines_give_the_same_conversation_and_what_was_said_matters(chat):
    first = said(chat, "Hello.", "Go on.")
    again = said(chat, "/new", "Hello.", "Go on.")[1:]
    other = said(chat, "/new", "Begin.", "Go on.")[1:]
    assert first == again
    assert other[1] != first[1]


def test_a_retry_replaces_the_answer_by_another(chat):
    first, second, third = said(chat, "Hello.", "/retry", "/retry")
    assert len({first, second, third}) == 3
    assert chat.turns == [("Hello.", third, "tuned")]
    assert said(chat, "/new", "Hello.", "/retry")[1:] == [first, second]


def test_settings_change_in_the_conversation(chat):
    changed = said(chat, "/temperature 0", "/length 3", "/seed 4")
    assert changed == ["temperature 0.0", "max_new_tokens 3", "seed 4"]
    assert (chat.params.temperature, chat.params.max_new_tokens, chat.params.seed) == (0, 3, 4)
    assert "top_p 0.95" in said(chat, "/settings")[0]
    assert said(chat, "/length") == ["max_new_tokens 3"]


def test_another_writer_continues_the_conversation(chat):
    said(chat, "Hello.", "/writer base", "Go on.")
    assert [writer for *_, writer in chat.turns] == ["tuned", "base"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/temperature hot", "temperature = hot: Input should be a valid number"),
        ("/top_p 2", "top_p = 2: Input should be less than or equal to 1"),
        ("/colour red", "/colour is not known: /help lists what is"),
        ("/writer nobody", "choose one of base, tuned"),
        ("/save", "say into which file"),
        ("/save x.md", "nothing has been said yet"),
        ("/retry", "nothing has been answered yet"),
        ("word " * 200, "a reply of 12 are more than the 512 tokens that the model reads"),
    ],
)
def test_what_a_chat_cannot_do_is_said_and_changes_nothing(chat, line, complaint):
    before = chat.params, chat.writer
    with pytest.raises(UserError, match=complaint):
        said(chat, line)
    assert (chat.params, chat.writer, chat.turns) == (*before, [])


def test_turns_that_do_not_fit_any_more_are_forgotten_aloud(chat):
    said(chat, "a" * 150, "b" * 150)
    (answer,) = said(chat, "c" * 150)
    assert answer.startswith("[forgetting the first 1 of 2 turns")
    assert len(chat.turns) == 3


def test_an_answer_broken_off_is_kept_as_far_as_it_went(chat):
    words = chat.hear("Hello.")
    begin = next(words)
    words.close()
    assert chat.turns == [("Hello.", begin, "tuned")]


def test_a_transcript_holds_every_word_and_no_markup(chat, tmp_path):
    said(chat, "# Hello\n<b>", "/writer base", "Go on.")
    chat.home = tmp_path
    assert said(chat, "/save talk.md") == ["saved to talk.md"]
    page = (tmp_path / "talk.md").read_text()
    assert "**you**\n\n    # Hello\n    <b>\n" in page and "**base**" in page
    assert printable(chat.turns[0][1]).splitlines()[0] in page and "temperature 1.0" in page


def test_a_scripted_chat_from_the_command_line(adapter, storyforge):
    typed = "Hello.\n/length 4\nGo on.\n/top_p 7\n/save talk.md\n/quit\nNot heard.\n"
    done = storyforge("chat", "--seed", "3", typed=typed)
    assert done.stdout == storyforge("chat", "--seed", "3", typed=typed).stdout
    heard = [line[2:] for line in done.stdout.splitlines() if line.startswith("> ")]
    assert heard == ["Hello.", "/length 4", "Go on.", "/top_p 7", "/save talk.md", "/quit"]
    assert "max_new_tokens 4\n" in done.stdout and "saved to talk.md\n" in done.stdout
    assert "error: top_p = 7: Input should be less than or equal to 1\n" in done.stderr
    assert (adapter.parents[1] / "talk.md").exists()


def test_a_chat_ends_with_its_input(adapter, storyforge):
    assert storyforge("chat", typed="").stdout == "> \n"


def test_the_aligned_writer_may_begin(aligned, storyforge):
    said = storyforge("chat", "--writer", "aligned", typed="/settings\n").stdout
    assert "\nwriter aligned\n" in said


def test_an_unknown_writer_is_refused_before_anything_is_loaded(adapter, storyforge):
    complaint = "error: --writer nobody: choose one of base, tuned\n"
    assert storyforge("chat", "--writer", "nobody", status=1).stderr == complaint


class Stopped:
    """A chat whose first answer is broken off by Ctrl-C."""

    over = False

    def hear(self, line):
        yield f"{line} and"
        if line == "first":
            raise KeyboardInterrupt
        self.over = True


def test_ctrl_c_ends_the_answer_and_not_the_chat(monkeypatch, capsys):
    lines = iter(["first", "second", "never read"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    converse(Stopped())
    assert capsys.readouterr().out == "first\nfirst and\nsecond\nsecond and\n"


def test_ctrl_c_between_answers_ends_the_chat(monkeypatch):
    def stopped(prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", stopped)
    with pytest.raises(KeyboardInterrupt):
        converse(Stopped())


def test_a_line_that_is_not_utf_8_is_one_error_and_the_conversation_goes_on(adapter, storyforge):
    done = storyforge("chat", "--length", "3", typed=b"A \xff.\n/length\n")
    assert done.stderr.count("error: not answered: character 3 is half a character or not UTF-8") == 1
    assert "max_new_tokens 3" in done.stdout
