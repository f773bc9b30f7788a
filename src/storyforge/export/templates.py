"""The chat format written out for other programs: a Jinja template, and Ollama's Modelfile."""

import json
from collections.abc import Iterable

from storyforge.model.chat import ChatFormat, render


def jinja(chat: ChatFormat, system: str) -> str:
    """What transformers and llama.cpp render; `system` speaks where the first message is not a system's."""
    begin, turn, opening = _parts(chat)
    first = json.dumps(
        _filled(turn, "system", system), ensure_ascii=False
    )  # Jinja reads strings as JSON does
    each = json.dumps(turn, ensure_ascii=False)
    each = _filled(each, "\" + message['role'] + \"", "\" + message['content'] + \"").replace(' + ""', "")
    return "".join(
        (
            f"{{{{ {json.dumps(begin)} }}}}" if begin else "",
            f"{{% if not messages or messages[0]['role'] != 'system' %}}{{{{ {first} }}}}{{% endif %}}",
            f"{{% for message in messages %}}{{{{ {each} }}}}{{% endfor %}}",
            f"{{% if add_generation_prompt %}}{{{{ {json.dumps(opening)} }}}}{{% endif %}}",
        )
    )


def modelfile(file: str, chat: ChatFormat, system: str, parameters: Iterable[tuple[str, object]]) -> str:
    """For `ollama create`: what to load, how a talk is written, where a reply stops.

    Ollama puts the token that begins a text there by itself, as the file's `add_bos_token` says.
    """
    _, turn, opening = _parts(chat)
    turn = _filled(turn, "{{ .Role }}", "{{ .Content }}")
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


def _parts(chat: ChatFormat) -> tuple[str, str, str]:
    """What begins a text, a whole turn with `{role}` and `{text}` in it, and the opening of a reply."""
    begin = "".join(piece.text for piece in chat.begin)
    opening = "".join(piece.text for piece in render(chat, ())).removeprefix(begin)
    turn = "".join(piece.text for piece in render(chat, [("{role}", "{text}")]))
    return begin, turn.removeprefix(begin).removesuffix(opening), opening


def _filled(turn: str, role: str, text: str) -> str:
    return turn.replace("{role}", role).replace("{text}", text)
