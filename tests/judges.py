"""A stand-in on loopback for Anthropic's service and for a server that speaks OpenAI's chat completions."""

import _thread
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from hub import send, serve

from storyforge.judging.calls import ask
from storyforge.judging.params import CallParams
from storyforge.judging.service import Call

KEY = "sk-ant-planted-0123456789"  # must never appear where it is not sent
MODEL = "claude-sonnet-5-5"
WRITTEN_AT = "2026-11-29T00:00:00Z"
USAGE = {"input_tokens": 1000, "output_tokens": 500}  # 0.7 cents of MODEL

SCHEMA = {
    "type": "object",
    "properties": {"winner": {"type": "string", "enum": ["A", "B", "tie"]}},
    "required": ["winner"],
    "additionalProperties": False,
}


@dataclass
class Judges:
    """`faults` answer the next requests for a message, one each; `expiring` lists results of batched texts.

    `asked` lists the body of every request for a message, `paid` the texts that were answered.
    """

    faults: list[Callable] = field(default_factory=list)
    asked: list[dict] = field(default_factory=list)
    paid: list[str] = field(default_factory=list)
    batches: dict[str, list[dict]] = field(default_factory=dict)
    results: dict[str, list[dict]] = field(default_factory=dict)  # by text: what its next batches say of it
    polls: list[str] = field(default_factory=list)
    polls_until_ended: int = 1
    on_poll: Callable | None = None
    archived: list[str] = field(default_factory=list)
    verdict: Callable[[str], str] = lambda text: json.dumps({"winner": "AB"[len(text) % 2]})
    key: str = KEY
    models: list[str] = field(default_factory=lambda: [MODEL])  # that a compatible server lists
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator["Judges"]:
        with serve(self._spoken_to) as self.url:
            try:
                yield self
            finally:
                self.closing.set()

    def _spoken_to(self, request) -> None:
        with suppress(OSError):  # a caller that was killed, or waits no longer
            self._answer(request)

    def _answer(self, request) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"] or 0)) or b"null")
        given = request.headers["x-api-key"] or request.headers["Authorization"].removeprefix("Bearer ")
        if given != self.key:
            return error(401, f"invalid key: {given}")(self, request, body)
        match request.command, request.path.strip("/").split("/"):
            case "GET", ["v1", "models"]:
                reply(request, {"object": "list", "data": [{"id": each} for each in self.models]})
            case "GET", ["v1", "models", model] if model.startswith("claude-sonnet"):
                about = {"id": model, "type": "model", "display_name": model, "created_at": WRITTEN_AT}
                reply(request, about)
            case "POST", ["v1", "messages", "count_tokens"]:
                reply(request, {"input_tokens": len(json.dumps(body)) // 4})
            case "POST", ["v1", "messages"]:
                self._message(request, body, body["messages"][0]["content"], message)
            case "POST", ["v1", "chat", "completions"]:
                self._message(request, body, body["messages"][1]["content"], completion)
            case "POST", ["v1", "messages", "batches"]:
                self._batch(request, body)
            case "GET", ["v1", "messages", "batches", batch] if batch in self.batches:
                self.polls.append(batch)
                if self.on_poll:
                    self.on_poll()
                reply(request, self._about(batch))
            case "GET", ["v1", "messages", "batches", batch, "results"]:
                lines = [json.dumps(self._result(each)) for each in reversed(self.batches[batch])]
                send(request, "".join(f"{line}\n" for line in lines).encode())
            case _:
                error(404, f"not found: {request.path}")(self, request, body)

    def _message(self, request, body: dict, text: str, form: Callable) -> None:
        with self.lock:
            self.asked.append(body)
            fault = self.faults.pop(0) if self.faults else None
        if fault and not fault(self, request, body):
            return
        with self.lock:
            self.paid.append(text)
        reply(request, form(self.verdict(text)))

    def _batch(self, request, body: dict) -> None:
        if self.faults:
            return self.faults.pop(0)(self, request, body)
        batch = f"msgbatch_{len(self.batches) + 1}"
        self.batches[batch] = body["requests"]
        reply(request, self._about(batch))

    def _about(self, batch: str) -> dict:
        ended = self.polls.count(batch) >= self.polls_until_ended
        counts = {name: 0 for name in ("canceled", "errored", "expired", "processing", "succeeded")}
        return {
            "id": batch,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts,
            "created_at": WRITTEN_AT,
            "expires_at": WRITTEN_AT,
            "ended_at": WRITTEN_AT if ended else None,
            "archived_at": WRITTEN_AT if batch in self.archived else None,
            "cancel_initiated_at": None,
            "results_url": f"{self.url}/v1/messages/batches/{batch}/results" if ended else None,
        }

    def _result(self, each: dict) -> dict:
        text = text_of(each)
        with self.lock:
            if self.results.get(text):
                return {"custom_id": each["custom_id"], "result": self.results[text].pop(0)}
            self.paid.append(text)
        result = {"type": "succeeded", "message": message(self.verdict(text))}
        return {"custom_id": each["custom_id"], "result": result}


def text_of(request: dict) -> str:
    """What one request of a batch asks."""
    return request["params"]["messages"][0]["content"]


def message(text: str, stop_reason: str = "end_turn") -> dict:
    """As the service writes it: the thinking comes first."""
    thinking = {"type": "thinking", "thinking": "{no answer}", "signature": "s"}
    content = [thinking, {"type": "text", "text": text}]
    about = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "stop_sequence": None}
    return about | {"content": content, "stop_reason": stop_reason, "usage": USAGE}


def completion(text: str, finish_reason: str = "stop", refusal: str | None = None) -> dict:
    said = {"role": "assistant", "content": text, "refusal": refusal}
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
    choice = {"index": 0, "message": said, "finish_reason": finish_reason}
    return {"id": "c1", "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}


def reply(request, body: dict) -> None:
    send(request, json.dumps(body).encode(), {"Content-Type": "application/json"})


def replies(body: dict) -> Callable:
    """A fault: this, which is paid for."""
    return lambda judges, request, asked: reply(request, body)


def error(status: int, said: str = "no", kind: str = "some_error", **headers: str) -> Callable:
    """A fault: this status, with headers such as retry_after."""
    body = json.dumps({"type": "error", "error": {"type": kind, "message": said}}).encode()
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return lambda judges, request, asked: send(request, body, named, status)


def reset(judges: Judges, request, asked: dict) -> None:
    """A fault: the connection is reset, nobody knows why."""
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.connection.close()


def answered(judges: Judges, request, asked: dict) -> bool:
    """No fault."""
    return True


def answered_late(judges: Judges, request, asked: dict) -> bool:
    """No fault, but others are answered first."""
    return not judges.closing.wait(0.1)


def interrupt() -> None:
    """Ctrl-C, in the main thread."""
    _thread.interrupt_main()


def silence(judges: Judges, request, asked: dict) -> None:
    """A fault: nothing comes."""
    judges.closing.wait(60)


def no_json(judges: Judges, request, asked: dict) -> None:
    """A fault: a page where a reply should be."""
    send(request, b"<html>Please log in", {"Content-Type": "application/json"})


def run(url: str, store: Path, count: int, batch: bool) -> None:
    """A whole run, for a process of its own."""
    os.environ["ANTHROPIC_API_KEY"] = KEY
    params = made(url, "anthropic", batch=batch, workers=4)
    ask(questions(count), provider="anthropic", params=params, validate=validate, store=store, say=str)


def made(url: str, provider: str, **choices) -> CallParams:
    own = {"base_url": url if provider == "anthropic" else f"{url}/v1"}
    defaults = {"model": MODEL, "effort": "low", "max_dollars": 10, "batch": False, "workers": 1}
    return CallParams(**{**defaults, "max_wait_s": 0.01, "max_output_tokens": 1000, **own, **choices})


def questions(count: int = 3) -> list[Call]:
    return [Call("Judge the texts.", f"Texts {'x' * n}", SCHEMA, label="ab"[n % 2]) for n in range(count)]


def validate(value: dict) -> None:
    if value.get("winner") not in ("A", "B", "tie"):
        raise ValueError("no winner")
