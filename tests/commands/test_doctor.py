import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import bucket
import pytest
import torch
from hub import NOWHERE, Hub, isolate
from pipeline import Repository
from ruamel.yaml import YAML

from storyforge.core import on_ray
from storyforge.commands import doctor, graphics
from storyforge.commands.doctor import Finding
from storyforge.commands.repository import is_orphan
from storyforge.core.assets import content
from storyforge.core.errors import UserError
from storyforge.core.hub import listed
from storyforge.core.origins import Origin

ROOT = Path(__file__).parents[2]
LOCK = "schema: '2.0'\nstages:\n" + "".join(
    f"  {name}:\n    cmd: make {name}\n    params:\n      params.yaml:\n        {name}:\n          size: 3\n"
    f"    outs:\n    - path: {name}.txt\n      hash: md5\n      md5: {'a' * 32}\n      size: 299\n"
    f"    - path: {name}\n      hash: md5\n      md5: {'b' * 32}.dir\n      size: 3\n      nfiles: 1\n"
    for name in ("first", "second")
)


@pytest.fixture
def repository(tmp_path, monkeypatch, environment) -> Repository:
    """Git, a lock file of two stages, and no run of DVC."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text(LOCK)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text("first: {size: 3}\nsecond: {size: 3}\nother: 1\n")
    made = Repository(tmp_path, environment)
    made.git("init", "--quiet")
    made.commit("start")
    return made


def mend(check) -> Finding:
    """What the check says after its own remedy."""
    finding = check()
    assert finding.remedy and not finding.by_hand
    return doctor.mended(finding, check)


def test_a_sound_repository_is_ok(repository):
    for check in ("rwlock", "lock", "branch", "experiments", "params"):
        assert getattr(doctor, check)().state == "ok", check


def test_a_lock_file_cut_anywhere_is_found_and_restored(repository):
    """Cut after a whole stage it is what DVC leaves when a run stops there: a valid lock file."""
    whole_stage = LOCK.index("  second:")
    for at in {*range(0, len(LOCK), 5), whole_stage}:
        (repository.root / "dvc.lock").write_text(LOCK[:at])
        expected = "ok" if at == whole_stage else "wrong"
        assert doctor.lock().state == expected, LOCK[:at]
    assert mend(doctor.lock).state == "ok"
    assert (repository.root / "dvc.lock").read_text() == LOCK


def test_the_lock_file_of_the_index_goes_before_that_of_the_last_commit(repository):
    newer = LOCK.replace("size: 299", "size: 300")
    (repository.root / "dvc.lock").write_text(newer)
    repository.git("add", "dvc.lock")
    (repository.root / "dvc.lock").write_text("")
    assert mend(doctor.lock).state == "ok"
    assert (repository.root / "dvc.lock").read_text() == newer


def test_a_lock_file_that_git_never_had_is_removed(repository):
    repository.git("rm", "--quiet", "--cached", "dvc.lock")
    repository.git("commit", "--quiet", "--message", "none")
    (repository.root / "dvc.lock").write_text("stages: {")
    assert mend(doctor.lock).text.startswith("there is none")


@pytest.mark.parametrize("text", ["", '{"write": {"out', "nonsense"])
def test_a_broken_rwlock_is_removed(repository, text):
    path = repository.root / doctor.RWLOCK
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert mend(doctor.rwlock).state == "ok"
    assert not path.exists()


def test_nothing_of_a_run_at_work_is_touched(repository):
    head = repository.git("rev-parse", "HEAD").strip()
    repository.git("update-ref", "refs/exps/exec/EXEC_BASELINE", head)
    repository.git("checkout", "--quiet", "--detach")
    path = repository.root / doctor.RWLOCK
    path.parent.mkdir(parents=True)
    path.write_text("{")
    (repository.root / "dvc").write_text("import time; print(flush=True); time.sleep(60)")
    busy = subprocess.Popen([sys.executable, "dvc"], cwd=repository.root, stdout=subprocess.PIPE)
    try:
        busy.stdout.readline()
        for check in ("rwlock", "branch", "experiments"):
            finding = getattr(doctor, check)()
            assert finding.remedy == "" and str(busy.pid) in finding.text
    finally:
        busy.kill()
        busy.communicate()
    assert doctor.branch().state == "wrong"


def test_a_detached_head_returns_to_its_branch_and_no_edit_is_lost(repository):
    repository.git("branch", "another")
    repository.git("checkout", "--quiet", "--detach")
    (repository.root / "params.yaml").write_text("edited: 1\n")
    finding = mend(doctor.branch)
    assert (finding.state, finding.text) == ("ok", "main")
    assert (repository.root / "params.yaml").read_text() == "edited: 1\n"


def test_a_commit_on_no_branch_is_left_to_its_owner(repository):
    repository.git("checkout", "--quiet", "--detach")
    (repository.root / "params.yaml").write_text("edited: 1\n")
    repository.commit("lost?")
    finding = doctor.branch()
    assert finding.state == "wrong" and finding.by_hand and "git switch --create" in finding.remedy


def test_an_older_commit_looked_at_on_purpose_is_a_note(repository):
    (repository.root / "more").write_text("")
    repository.commit("more")
    repository.git("checkout", "--quiet", "HEAD~1")
    finding = doctor.branch()
    assert (finding.state, finding.by_hand, finding.remedy) == ("note", True, "git switch main")


def test_a_killed_experiment_is_cleared_away(copy, ran):
    """The real thing: `dvc exp run` killed with signal 9 in the middle of a stage."""
    (copy / "make.py").write_text("import time\ntime.sleep(60)\n")
    repository = Repository(copy, ran.env)
    log = (copy / ".dvc" / "tmp" / "log").open("w")
    options = {"stdout": log, "stderr": log, "start_new_session": True}
    running = subprocess.Popen(["dvc", "exp", "run"], cwd=copy, env=ran.env, **options)
    try:
        wait_for(lambda: "Running stage" in (copy / ".dvc/tmp/log").read_text())
        wait_for(lambda: doctor.experiments().text.startswith("one is running"))
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        os.killpg(running.pid, signal.SIGKILL)  # the stage outlives its dvc
    assert doctor.branch().state == doctor.experiments().state == "wrong"
    assert mend(doctor.branch).text == "main"
    assert mend(doctor.experiments).text == "no leftovers"
    assert doctor.UNFINISHED.isdisjoint(repository.git("for-each-ref").replace("/", " ").split())


@pytest.fixture
def make(copy, ran):
    """`make repro` in the clone, which is set up: its status and what it prints."""
    for name in ("requirements.txt", "constraints.txt"):
        (copy / name).touch()
    shutil.copy(ROOT / "Makefile", copy)
    programs = Path(sys.executable).parent
    command = ["make", f"BIN={programs}", "-o", f"{programs}/.ready", "repro"]
    options = {"env": {**ran.env, "PYTHONPATH": str(ROOT / "src")}, "cwd": copy, "text": True}
    return lambda: subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)


@pytest.mark.parametrize("kept", [0, 5])
def test_make_repro_names_a_lock_file_that_was_cut_short(copy, make, kept):
    whole = (copy / "dvc.lock").read_text()
    (copy / "dvc.lock").write_text(whole[:kept])
    done = make()
    assert done.returncode
    assert "dvc.lock is empty, cut short or not YAML: git checkout -- dvc.lock\n" in done.stdout
    (copy / "dvc.lock").write_text(whole)
    done = make()
    assert done.returncode == 0 and "wrong" not in done.stdout


def wait_for(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited for a minute")


def test_params_that_differ_from_the_last_run_are_named(repository):
    (repository.root / "params.yaml").write_text("first: {size: 4}\nsecond: {length: 3}\nother: 2\n")
    finding = doctor.params()
    assert finding.state == "note" and finding.by_hand and finding.remedy == "dvc repro"
    assert finding.text.endswith("first.size 3 → 4; second.length None → 3; second.size 3 → None")


def test_data_that_is_in_no_remote_is_pushed(copy, ran, tmp_path):
    repository = Repository(copy, ran.env)
    assert "this machine alone" in doctor.remote().text
    repository.dvc("remote", "add", "--default", "beside", str(tmp_path / "store"))
    finding = doctor.remote()
    assert (finding.state, finding.remedy) == ("note", "dvc push")
    assert "folder" in finding.text and "single.bin" in finding.text
    assert mend(doctor.remote).text == "has all data that is here"


def test_packages_are_compared_with_their_pins(repository):
    (repository.root / "requirements.txt").write_text(
        f"-c constraints.txt\n# why\npydantic==0.0.1  # old\ntorch=={version('torch').partition('+')[0]}\n"
        'dvc[s3,ssh]==1.0\nno-such-thing==1.0\nnot-for-us==1.0; sys_platform == "plan9"\n'
        'for-us==1.0; sys_platform != "plan9"\n-e .\n'
    )
    (repository.root / "constraints.txt").write_text("typer==0.0.1\nnever-heard-of==3\n")
    finding = doctor.packages()
    assert finding.state == "wrong" and "--requirement requirements.txt" in finding.remedy
    assert finding.text.startswith(f"not as pinned: pydantic {version('pydantic')}, not 0.0.1; dvc ")
    assert finding.text.endswith("no-such-thing is not installed and 2 more")


def ask(repository, **model) -> None:
    YAML().dump({"model": model}, repository.root / "params.yaml")


@pytest.mark.parametrize(
    ("asked", "here", "state"),
    [
        ({"quantization": "none", "precision": "auto"}, "cpu", "ok"),
        ({"quantization": "nf4", "precision": "bf16"}, "cpu", "wrong"),
        ({"quantization": "none", "precision": "fp16"}, "cpu", "wrong"),
        ({"quantization": "nf4", "precision": "fp16"}, "cuda", "ok"),
    ],
)
def test_a_gpu_is_missed_where_params_ask_for_one(repository, monkeypatch, asked, here, state):
    monkeypatch.setattr("storyforge.model.device.device", lambda: torch.device(here))
    monkeypatch.setattr(graphics, "NVIDIA", Path("no-such-place"))
    ask(repository, **asked)
    (repository.root / "params.yaml").open("a").write("# my recipe\n")
    finding = doctor.device()
    assert (
        finding.state == state and not finding.remedy
    )  # never a command that gives up what is in params.yaml


def test_without_a_c_compiler_training_is_slower(repository, monkeypatch):
    monkeypatch.setattr(graphics, "NVIDIA", Path("no-such-place"))
    monkeypatch.setenv("CC", "no-such-compiler")
    ask(repository, quantization="none")
    finding = doctor.device()
    assert (
        finding.state == "note"
        and "no C compiler (no-such-compiler): training takes the slower path" in finding.text
    )


def test_broken_links_and_leftovers_of_editors_are_named(repository):
    folder = repository.root / "data/my-stories"
    folder.mkdir(parents=True)
    (folder / "s1.txt").write_text("A story.")
    assert doctor.stories().state == "ok"
    for name in ("s1.txt~", ".s1.txt.swp", "#s1.txt#"):
        (folder / name).write_text("")
    assert doctor.stories() == Finding(
        "note",
        "data/my-stories/#s1.txt#, data/my-stories/.s1.txt.swp, data/my-stories/s1.txt~: left by an editor",
        "rm 'data/my-stories/#s1.txt#' data/my-stories/.s1.txt.swp 'data/my-stories/s1.txt~'",
        by_hand=True,
    )
    (folder / ".#s1.txt").symlink_to("me@here.1234")
    finding = doctor.stories()
    assert (finding.state, finding.text) == ("wrong", "data/my-stories/.#s1.txt: a link to nothing")


def test_a_good_experiment_leaves_nothing_to_repair(copy, ran):
    """DVC keeps EXEC_HEAD after it, EXEC_APPLY once it was applied."""
    repository = Repository(copy, ran.env)
    repository.dvc("exp", "run", "--force")
    assert "EXEC_HEAD" in repository.git("for-each-ref")
    (name,) = repository.dvc("exp", "list", "--name-only").split()[-1:]
    repository.dvc("exp", "apply", name)
    assert "EXEC_APPLY" in repository.git("for-each-ref")
    for check in ("rwlock", "lock", "branch", "experiments", "params", "data"):
        assert getattr(doctor, check)().state == "ok", check


def test_a_clone_that_was_not_built_is_built_not_pulled_or_pushed(copy, ran, tmp_path):
    Repository(copy, ran.env).dvc("remote", "add", "--default", "beside", str(tmp_path / "empty"))
    for folder in ("folder", ".dvc/cache"):
        shutil.rmtree(copy / folder)
    (copy / "single.bin").unlink()
    finding = doctor.data()
    assert (finding.state, finding.remedy, finding.by_hand) == ("note", "dvc repro", True)
    assert "folder" in finding.text and "single.bin" in finding.text
    assert doctor.remote() == Finding("ok", "has all data that is here")


def test_a_gpu_that_torch_cannot_use_is_pointed_out(repository, monkeypatch):
    monkeypatch.setattr(graphics, "NVIDIA", repository.root)
    monkeypatch.setattr(graphics, "torch_version", lambda: "2.13.0+cpu")
    ask(repository, quantization="none")
    finding = doctor.device()
    assert finding.remedy == f"{sys.executable} -m pip install --force-reinstall torch==2.13.0"
    assert finding.state == "wrong" and finding.by_hand


GATED = f"hub:owner/gated@{'0' * 40}"
REFUSED = f"{GATED}: access is refused: accept the licence on its page and set HF_TOKEN"


@pytest.fixture
def asks(repository, monkeypatch):
    """A hub on loopback that gates its model, and params that ask for it."""
    isolate(monkeypatch, repository.root / "cache")
    with Hub(
        {"config.json": b"{}"}, name="owner/gated", token="mine", revision="0" * 40
    ).running() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        ask(repository, origin=GATED)
        yield stand_in


@pytest.mark.parametrize(
    ("token", "state", "text"),
    [
        ("mine", "ok", "owner/gated may be read"),
        (
            "another's",
            "wrong",
            f"{GATED}: access is refused: accept the licence on its page and set HF_TOKEN",
        ),
        (None, "wrong", f"{GATED}: access is refused: accept the licence on its page and set HF_TOKEN"),
    ],
)
def test_gated_weights_ask_for_a_token(asks, monkeypatch, token, state, text):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    finding = doctor.hub()
    assert (finding.state, finding.text[: len(text)]) == (state, text)
    assert "\n" not in finding.text


def test_a_hub_that_cannot_be_asked_is_a_note(asks, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    finding = doctor.hub()
    assert finding.state == "note" and "the hub cannot be asked" in finding.text


def test_no_token_goes_over_an_open_line(asks, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "mine")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    finding = doctor.hub()
    assert "only https is trusted" in finding.text


def test_a_model_in_the_cache_needs_no_token_and_may_be_pinned(asks, repository, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "mine")
    listed(Origin.parse(GATED))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    finding, pin = doctor.hub(), content(Origin.parse(GATED), [])
    assert finding == Finding(
        "note", f"owner/gated is not pinned: write sha256: {pin} under model in params.yaml"
    )
    ask(repository, origin=GATED, sha256=pin)
    assert doctor.hub() == Finding("ok", "owner/gated is in the cache")


def test_a_file_of_the_cache_that_has_changed_is_named(asks, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "mine")
    kept = listed(Origin.parse(GATED))
    assert doctor.fetched().state == "ok"
    kept.chmod(0o644)
    kept.write_text("{}")
    finding = doctor.fetched()
    assert finding.state == "note" and f"{kept}: its digest was" in finding.text


def test_without_git_dvc_cannot_work_and_one_command_helps(repository):
    """The repository came as a ZIP."""
    shutil.rmtree(repository.root / ".git")
    assert [name for name, check in doctor.CHECKS.items() if doctor.outcome(check).state == "wrong"][:1] == [
        "place"
    ]
    assert doctor.branch().state == "ok"
    assert mend(doctor.place).state == "ok"


def test_a_path_with_braces_is_named(repository, monkeypatch):
    assert doctor.place().state == "ok"
    inside = repository.root / "a{b}"
    inside.mkdir()
    monkeypatch.chdir(inside)
    finding = doctor.place()
    assert finding.state == "wrong" and f"{inside}: DVC fails where a path has braces" in finding.text


@pytest.mark.parametrize("missing", ["HOME", "USER"])
def test_without_a_home_or_a_name_dvc_cannot_work(repository, monkeypatch, missing):
    """As in a container with `--user 1234`: the user is in no list of users."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("USER", "me")
    assert doctor.place().state == "ok"
    monkeypatch.delenv(missing)
    assert doctor.place().text.startswith("no home or no user name: set HOME")


def test_ray_must_be_installed_and_answer(repository, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert doctor.engine().state == "ok"
    Path("engine.yaml").write_text("kind: ray\naddress: 127.0.0.1:1\n")
    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    finding = doctor.outcome(doctor.engine)
    assert finding.state == "wrong" and "127.0.0.1:1: the package ray is missing here: " in finding.text
    monkeypatch.setattr(on_ray, "find_spec", lambda name: name)
    finding = doctor.outcome(doctor.engine)
    assert finding.state == "wrong" and "address = 127.0.0.1:1: nothing answers" in finding.text
    Path("engine.yaml").write_text("kind: ray\naddress: auto\n")
    assert doctor.engine().state == "ok"


def test_an_object_store_must_answer(repository, monkeypatch):
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with bucket.started(monkeypatch) as store:
        Path("engine.yaml").write_text(f"work: {bucket.URL}\n")
        assert doctor.engine().state == "ok"
        Path("engine.yaml").write_text("work: s3://other\n")
        finding = doctor.outcome(doctor.engine)
        assert finding.state == "wrong" and "there is no bucket other: make that bucket" in finding.text
        store.stop()
        finding = doctor.outcome(doctor.engine)
        assert finding.state == "wrong" and "s3://other: NETWORK_CONNECTION in " in finding.text


def test_a_full_disk_is_wrong(repository, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 30))
    finding = doctor.disk()
    assert finding.state == "wrong" and "1.0 GiB free" in finding.text
    assert "--all-experiments" in finding.remedy and finding.by_hand


HOLD = """
import fcntl, time
file = open(".checkpoints/key/lock", "w")
fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(repository):
    """A process with a checkpoint's lock."""
    (repository.root / ".checkpoints" / "key").mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", HOLD], cwd=repository.root, stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_process_that_trains_is_left_alone(holder):
    """Its parent, this test, is alive."""
    assert doctor.processes() == Finding("ok", f"process {holder.pid} is training")


def test_an_orphan_with_the_lock_is_ended(holder, monkeypatch):
    monkeypatch.setattr(doctor, "is_orphan", lambda process: process.pid == holder.pid)
    finding = doctor.processes()
    assert (finding.state, finding.remedy) == ("wrong", f"kill {holder.pid}")
    assert mend(doctor.processes) == Finding("ok", "none holds a checkpoint")


@pytest.mark.parametrize(
    ("chain", "orphan"),
    [
        ([["python", "-m", "train"], ["/sbin/init"]], True),
        ([["python", "-m", "train"], ["systemd", "--user"], ["init"]], True),
        ([["python", "-m", "train"], ["sh", "-c", "…"], ["/bin/dvc", "repro"], ["bash"], ["init"]], False),
        ([["python", "-m", "train"], ["python", "/venv/bin/dvc", "repro"]], False),  # dvc is process 1
        ([["python", "-m", "train"], ["bash"], ["sshd"], ["init"]], False),
    ],
)
def test_an_orphan_has_lost_its_dvc(chain, orphan):
    pids = [*range(100, 100 + len(chain) - 1), 1]
    made = [
        SimpleNamespace(pid=pid, cmdline=lambda words=words: words)
        for pid, words in zip(pids, chain, strict=True)
    ]
    made[0].parents = lambda: made[1:]
    assert is_orphan(made[0]) is orphan


def fake(*findings):
    """A check that says one after the other."""
    left = list(findings)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
def checks(monkeypatch, repository):
    broken = Finding("wrong", "a file too many", "rm surplus")
    by_hand = Finding("note", "to be run again", "dvc repro", by_hand=True)
    (repository.root / "surplus").write_text("")
    fine, gone = Finding("ok", "fine"), Finding("ok", "gone")
    found = {"one": fake(fine), "two": fake(broken, gone), "three": fake(by_hand)}
    monkeypatch.setattr(doctor, "CHECKS", found)


def test_without_fix_everything_is_told_and_nothing_done(checks, repository, storyforge):
    assert storyforge("doctor", status=1).stdout == (
        "ok     one          fine\n"
        "wrong  two          a file too many: rm surplus\n"
        "note   three        to be run again: dvc repro\n"
    )
    assert (repository.root / "surplus").exists()


def test_fix_mends_what_it_can_and_says_so(checks, repository, storyforge):
    lines = storyforge("doctor", "--fix").stdout.splitlines()
    assert lines[1:3] == ["wrong  two          a file too many: rm surplus", "ok     two          gone"]
    assert not (repository.root / "surplus").exists()


def test_a_remedy_that_fails_is_told(repository):
    finding = Finding("wrong", "broken", "git no-such-verb")
    assert "`git no-such-verb` failed" in doctor.mended(finding, lambda: finding).text


def test_a_check_that_cannot_look_is_a_finding():
    def check():
        raise UserError("git is not installed")

    assert doctor.outcome(check) == Finding("wrong", "git is not installed")


@pytest.mark.parametrize(
    "lock",
    [
        "stages: {a: 5}\n",
        "stages:\n  a: {params: null, outs: [{path: b, md5: c, size: many}]}\n",
        "x: 2001-99-99\n",
        "[" * 5000,
    ],
)
def test_a_strange_lock_file_is_a_finding_of_every_check_that_reads_it(repository, lock):
    Path("dvc.lock").write_text(lock)
    for check in (doctor.lock, doctor.params, doctor.disk, doctor.data):
        assert isinstance(doctor.outcome(check), doctor.Finding)
