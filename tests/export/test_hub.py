"""The documented commands put an adapter and its card on a hub: a stand-in, by the client installed."""

import base64
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import hub
import pytest

DOCS = (Path(__file__).parents[2] / "docs/EXPORT.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^hf upload .*$", DOCS, re.M)
NAME = "YOU/my-storyteller"


class Repository:
    """A new one, empty; takes files in commits, and says that each may come in one."""

    def __init__(self):
        self.files, self.visibility, self.tokens = {}, [], set()

    def answer(self, request):
        body = request.rfile.read(int(request.headers["Content-Length"] or 0))
        path, said = request.path.partition("?")[0], {}
        address = f"http://{request.headers['Host']}"
        if path == "/api/repos/create":
            self.visibility.append(json.loads(body).get("visibility"))
            said = {"url": f"{address}/{NAME}", "id": NAME, "name": NAME}
        elif path == f"/api/models/{NAME}/preupload/main":
            asked = json.loads(body)["files"]
            said = {
                "files": [
                    {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                    for each in asked
                ]
            }
        elif path == f"/api/models/{NAME}/commit/main":
            self.tokens.add(request.headers["Authorization"])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            said = {"success": True, "commitOid": "b" * 40, "commitUrl": f"{address}/{NAME}/commit/b"}
        elif path.startswith("/api/validate-yaml"):
            said = {"errors": [], "warnings": []}
        hub.send(request, json.dumps(said).encode(), {"Content-Type": "application/json"})


@pytest.mark.slow
def test_the_documented_commands_send_the_adapter_and_its_card(tmp_path):
    held = {"adapter_model.safetensors": bytes(1000), "adapter_config.json": b"{}", "training.json": b"{}\n"}
    (tmp_path / "models/tuned").mkdir(parents=True)
    (tmp_path / "reports").mkdir()
    for name, content in held.items():
        (tmp_path / "models/tuned" / name).write_bytes(content)
    card = b"---\nlibrary_name: peft\n---\n# A storyteller\n"
    (tmp_path / "reports/MODEL_CARD.md").write_bytes(card)
    repository = Repository()
    with hub.serve(repository.answer) as url:
        settings = {"HF_ENDPOINT": url, "HF_TOKEN": "hf_secret", "HF_HOME": str(tmp_path / "home")}
        for command in COMMANDS:
            words = shlex.split(command, comments=True)
            words[0] = str(Path(sys.executable).with_name("hf"))
            done = subprocess.run(
                words, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
    assert len(COMMANDS) == 2 and repository.files == held | {"README.md": card}
    assert repository.visibility[0] == "private" and repository.tokens == {"Bearer hf_secret"}
