"""A service on loopback and a small set of calls; no test reads this machine's keys or settings."""

import hub
import pytest
from judges import KEY, Judges, made, questions, validate

from storyforge.judging import calls as module


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    hub.isolate(monkeypatch, tmp_path / "cache")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_PROFILE", "ANTHROPIC_BASE_URL", "ANTHROPIC_LOG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, KEY)


@pytest.fixture
def service():
    with Judges().running() as stand_in:
        yield stand_in


@pytest.fixture
def store(tmp_path):
    return tmp_path / "cache" / "calls" / "judge.sqlite"


@pytest.fixture(params=["anthropic", "openai"])
def provider(request):
    """What every provider must do."""
    return request.param


@pytest.fixture
def ask(service, store):
    """`ask` of the stand-in, with its choices: workers, batch …; `said` holds what it told."""

    def asked(calls=None, provider="anthropic", path=store, **choices):
        params = made(service.url, provider, **choices)
        return module.ask(
            questions() if calls is None else calls,
            provider=provider,
            params=params,
            validate=validate,
            store=path,
            say=asked.said.append,
        )

    asked.said = []
    asked.elsewhere = store.with_name("another.sqlite")
    return asked


@pytest.fixture
def usage(service, store):
    def found(calls=None, provider="anthropic", **choices):
        params = made(service.url, provider, **choices)
        return module.usage(calls or questions(), provider=provider, params=params, store=store)

    return found
