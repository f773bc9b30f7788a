"""The chat format written out for other programs: a Jinja template, and Ollama's Modelfile."""

import json
from collections.abc import Iterable

from storyforge.model.chat import ChatFormat, render

ROLE, TEXT = "{role}", "{text}"


def jinja(chat: ChatFormat, system: str) -> str:
    """What transformers and llama.cpp render; `system` speaks where the first message is not a system's."""
    opening = _text(chat, ())
    begin, assistant = _begin(chat), opening.removeprefix(_begin(chat))
    turn = _quoted(_turn(chat)).replace(ROLE, "\" + message['role'] + \"")
    turn = turn.replace(TEXT, "\" + message['content'] + \"").replace(' + ""', "")
    return "".join(
        (
            f"{{{{ {_quoted(begin)} }}}}" if begin else "",
            "{% if not messages or messages[0]['role'] != 'system' %}",
            f"{{{{ {_quoted(_turn(chat).replace(ROLE, 'system').replace(TEXT, system))} }}}}{{% endif %}}",
            f"{{% for message in messages %}}{{{{ {turn} }}}}{{% endfor %}}",
            f"{{% if add_generation_prompt %}}{{{{ {_quoted(assistant)} }}}}{{% endif %}}",
        )
    )


def modelfile(file: str, chat: ChatFormat, system: str, parameters: Iterable[tuple[str, object]]) -> str:
    """For `ollama create`: what to load, how a talk is written, where a reply stops.

    Ollama puts the token that begins a text there by itself, as the file's `add_bos_token` says.
    """
    turn = _turn(chat).replace(ROLE, "{{ .Role }}").replace(TEXT, "{{ .Content }}")
    opening = _text(chat, ()).removeprefix(_begin(chat))
    stops = [("stop", json.dumps(stop)) for stop in chat.stops]
    return "\n".join(
        (
            f"FROM ./{file}",
            f'TEMPLATE """{{{{ range .Messages }}}}{turn}{{{{ end }}}}{opening}"""',
            f'SYSTEM """{system}"""',
            *(f"PARAMETER {name} {value}" for name, value in (*stops, *parameters)),
            "",
        )
    )


def _turn(chat: ChatFormat) -> str:
    """A whole turn, `{role}` and `{text}` in it."""
    first = _text(chat, [(ROLE, TEXT)])
    return first.removeprefix(_begin(chat)).removesuffix(_text(chat, ()).removeprefix(_begin(chat)))


def _begin(chat: ChatFormat) -> str:
    return "".join(piece.text for piece in chat.begin)


def _text(chat: ChatFormat, messages: Iterable[tuple[str, str]]) -> str:
    return "".join(piece.text for piece in render(chat, messages))


def _quoted(text: str) -> str:
    """A string as Jinja reads it."""
    return json.dumps(text, ensure_ascii=False)
