"""Real offline runs of W&B, read back from disk."""

import json
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from ruamel.yaml import YAML
from wandb_runs import offline_runs

from storyforge.core import tracking
from storyforge.core.errors import UserError
from storyforge.core.tracking import tracked


@pytest.fixture(autouse=True)
def wanted(nobody, monkeypatch):
    monkeypatch.chdir(nobody)
    YAML().dump({"tracking": {"wandb": True}}, nobody / "params.yaml")


def test_a_run_under_the_same_key_goes_on(nobody):
    with tracked("train", {"rate": 1}, key="abc123") as track:
        track.log(1, {"loss": 3.0})
    with tracked("train", {"rate": 1}, key="abc123") as track:
        track.log(2, {"loss": 2.0})
    first, second = offline_runs(nobody)
    assert first["id"] == second["id"] == "abc123"
    assert [(row["step"], row["loss"]) for run in (first, second) for row in run["history"]] == [
        (1, 3.0),
        (2, 2.0),
    ]


def test_its_tags_are_the_commit_and_the_experiment(nobody, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "tidal-wave")
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0123abcd")
    with tracked("train", {}, key="k"):
        pass
    (run,) = offline_runs(nobody)
    assert set(run["tags"]) == {"0123abcd", "tidal-wave"} and run["group"] == "tidal-wave"


def test_outside_an_experiment_the_commit_is_the_one_checked_out(nobody):
    def git(*arguments):
        command = ["git", "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    git("commit", "--allow-empty", "-m", "first")
    with tracked("train", {}):
        pass
    (run,) = offline_runs(nobody)
    assert run["tags"] == [git("rev-parse", "HEAD")]


def test_samples_become_a_table_and_figures_a_summary(nobody):
    rows = [
        {"prompt": "Sing.", "base": "La", "tuned": "Ah\nme"},
        {"prompt": "Say.", "base": "b", "tuned": "t"},
    ]
    with tracked("evaluate", {"seed": 3}) as track:
        track.conclude({"improvement": {"nats_per_token": 0.4}}, rows)
    (run,) = offline_runs(nobody)
    assert run["config"]["seed"] == 3
    assert run["summary"]["improvement"]["nats_per_token"] == 0.4
    (table,) = run["file"].parent.glob("files/media/table/samples_*.table.json")
    assert YAML(typ="safe").load(table) == {
        "columns": ["prompt", "base", "tuned"],
        "data": [["Sing.", "La", "Ah\nme"], ["Say.", "b", "t"]],
    }


def test_memory_is_sampled_and_secrets_are_not(nobody, monkeypatch):
    """GPU use is sampled by the same monitor where there is a GPU."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws_secret")
    with tracked("train", {}):
        pass
    (run,) = offline_runs(nobody)
    assert {"proc.memory.rssMB", "memory_percent"} <= run["system"]
    for file in nobody.rglob("wandb/**/*"):
        assert not file.is_file() or b"_secret" not in file.read_bytes(), file


def test_without_a_network_it_is_kept_for_later(nobody, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(tracking, "PATIENCE_S", 1)
    with tracked("train", {}, key="k") as track:
        track.log(1, {"loss": 3.0})
    assert "W&B cannot be used (" in capfd.readouterr().err
    assert [run["history"][0]["loss"] for run in offline_runs(nobody)] == [3.0]


DELETED = "was previously created and deleted; try a new run name"  # W&B's words


@pytest.fixture
def server(nobody, monkeypatch):
    """As much of W&B's server as a run needs; runs whose names are in the set were deleted there."""
    deleted: set[str] = set()

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
            query, given = asked.get("query", ""), asked.get("variables", {})
            name, status = given.get("name"), 200
            project = {"id": "p", "name": "storyforge", "entity": {"id": "e", "name": "me"}}
            answer: dict = {}
            if "mutation UpsertBucket" in query and name in deleted:
                status, answer = 409, {"errors": [{"message": f"run {name} {DELETED}"}]}
            elif "mutation UpsertBucket" in query:
                bucket = {"id": "r", "name": name, "displayName": name, "project": project}
                answer = {"data": {"upsertBucket": {"inserted": True, "bucket": bucket}}}
            elif "RunResumeStatus" in query:
                answer = {"data": {"model": {**project, "bucket": None}}}
            elif "mutation CreateRunFiles" in query:
                answer = {"data": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}}}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as listening:
        Thread(target=listening.serve_forever).start()
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.server_port}")
        yield deleted
        listening.shutdown()


def test_a_run_deleted_at_the_server_goes_on_under_a_new_id(nobody, server, monkeypatch, capfd):
    monkeypatch.setattr(tracking, "PATIENCE_S", 4)
    server.update({"k", "k-2"})
    with tracked("train", {}, key="k") as track:
        track.log(1, {"loss": 3.0})
        assert track.run.id == "k-3" and not track.run.offline
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("W&B: ")]
    assert len(said) == 2 and said[1].endswith(f"run k-2 {DELETED}: the run is k-3 there")


def test_what_cannot_be_a_key_is_said_in_one_line(nobody, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(UserError, match="W&B: WANDB_API_KEY invalid.*tracking.wandb: false") as found:
        with tracked("train", {}):
            pass
    assert "\n" not in str(found.value)


def test_other_processes_and_other_params_track_nothing(nobody):
    with tracked("train", {}, key="k", main=False) as track:
        track.log(1, {"loss": 3.0})
    YAML().dump({"tracking": {"wandb": False}}, nobody / "params.yaml")
    with tracked("train", {}, key="k") as track:
        track.log(1, {"loss": 3.0})
        track.conclude({"loss": 1}, [{"prompt": "Sing."}])
    assert not (nobody / "wandb").exists()
