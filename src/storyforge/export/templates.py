"""The chat format written out for other programs: a Jinja template, and Ollama's Modelfile."""

import json
from collections.abc import Iterable

from storyforge.model.chat import ChatFormat, Piece

# The system's text, the rest of a talk, and the message that the text goes to where it has no turn.
APART = (
    "{% if messages and messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = SYSTEM %}{% endif %}"
    "{% set place = namespace(at=-1) %}"
    "{% for message in messages %}{% if message['role'] == 'user'CONDITION %}"
    "{% set place.at = loop.index0 %}{% endif %}{% endfor %}"
)
MERGED = "(system + JOINT + message['content'] if system and loop.index0 == place.at else message['content'])"
GO_PLACE = {"first": "(eq $i 1)", "last": "(eq (len (slice $.Messages $i)) 1)"}


def jinja(chat: ChatFormat, system: str) -> str:
    """What transformers and llama.cpp render; `system` speaks where the first message is not a system's."""
    begin, opening, said = _text(chat.begin), _text(chat.opening), "message['content']"
    if chat.system_in == "own":
        first = _string(_text(chat.turns["system"]).replace("{text}", system))
        start = f"{{% if not messages or messages[0]['role'] != 'system' %}}{{{{ {first} }}}}{{% endif %}}"
    else:
        start = APART.replace("CONDITION", " and place.at < 0" if chat.system_in == "first" else "")
        start = start.replace("SYSTEM", _string(system))  # last: it may hold any word
        said = MERGED.replace("JOINT", _string(chat.joint))

    def written(turn: str, text: str) -> str:
        each = (
            _string(turn).replace("{role}", "\" + message['role'] + \"").replace("{text}", f'" + {text} + "')
        )
        return f"{{{{ {each} }}}}".replace(' + ""', "").replace('{{ "" + ', "{{ ")

    if alike := _alike(chat):
        each = written(alike, "message['content']")
    else:
        each = "".join(
            f"{{% {'el' if number else ''}if message['role'] == '{role}' %}}"
            + written(_text(turn), said if role == "user" else "message['content']")
            for number, (role, turn) in enumerate(chat.turns.items())
        )
        each += "{% endif %}"
    return "".join(
        (
            f"{{{{ {_string(begin)} }}}}" if begin else "",
            start,
            f"{{% for message in messages %}}{each}{{% endfor %}}",
            f"{{% if add_generation_prompt %}}{{{{ {_string(opening)} }}}}{{% endif %}}",
        )
    )


def modelfile(file: str, chat: ChatFormat, system: str, parameters: Iterable[tuple[str, object]]) -> str:
    """For `ollama create`: what to load, how a talk is written, where a reply stops.

    Ollama puts the token that begins a text there by itself, as the file's `add_bos_token` says.
    """
    if alike := _alike(chat):
        turns = f"{{{{ range .Messages }}}}{alike}"
    else:
        turns = "{{ range $i, $_ := .Messages }}"
        for number, (role, turn) in enumerate(chat.turns.items()):
            text = _text(turn)
            if role == "user" and chat.system_in != "own":
                place = GO_PLACE[chat.system_in]
                before = f"{{{{ if and $.System {place} }}}}{{{{ $.System }}}}{chat.joint}{{{{ end }}}}"
                text = text.replace("{text}", f"{before}{{text}}")
            turns += f'{{{{ {"else " if number else ""}if eq .Role "{role}" }}}}{text}'
        turns += "{{ end }}"
    turns = turns.replace("{role}", "{{ .Role }}").replace("{text}", "{{ .Content }}")
    stops = [("stop", json.dumps(stop)) for stop in chat.stops]
    return "\n".join(
        (
            f"FROM ./{file}",
            f'TEMPLATE """{turns}{{{{ end }}}}{_text(chat.opening)}"""',
            f'SYSTEM """{system}"""',
            *(f"PARAMETER {name} {value}" for name, value in (*stops, *parameters)),
            "",
        )
    )


def _alike(chat: ChatFormat) -> str | None:
    """The one turn with `{role}` and `{text}` in it, where roles differ by their name alone."""
    turns = {_text(turn).replace(role, "{role}", 1) for role, turn in chat.turns.items()}
    return turns.pop() if len(turns) == 1 and chat.system_in == "own" else None


def _text(pieces: Iterable[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def _string(text: str) -> str:
    """As Jinja reads it, which reads strings as JSON does."""
    return json.dumps(text, ensure_ascii=False)
