"""Files that tasks leave for one another, in a folder or a store alike; a store's faults are one line."""

import os
import pickle
import socket
import subprocess
import sys
import time

import pytest
import tasks
from bucket import BUSY, DENIED, URL

from storyforge.core import storage
from storyforge.core.errors import UserError
from storyforge.core.storage import Work, require_store
from storyforge.core.workers import running


@pytest.fixture(params=["folder", "store"])
def work(request, tmp_path):
    if request.param == "store":
        request.getfixturevalue("store")
        return Work(URL)
    (tmp_path / "work").mkdir()
    return Work(str(tmp_path / "work"))


@pytest.fixture
def forgetful(monkeypatch):
    """Another node, as far as what is fetched goes."""

    def forget(name: str) -> None:
        monkeypatch.setenv("STORYFORGE_CACHE", name)

    return forget


def put(work: Work, name: str, content: bytes) -> None:
    with work.publishing(name) as file:
        file.write(content)


def test_what_is_published_is_read_on_each_node_and_goes_at_the_end(work, forgetful, tmp_path):
    content = os.urandom(11 << 20)  # more than one part
    with pytest.raises(KeyError), work.publishing_folder("0", "z") as folder:
        raise KeyError
    assert not any(name.startswith("0") for name in work.names())
    put(work, "a/large", content)
    put(work, "none", b"")
    with work.publishing_folder("000001", "b") as folder:
        for name in "abc":
            (folder / name).write_text(name)
    forgetful(str(tmp_path / "of another node"))
    again = pickle.loads(pickle.dumps(work))
    assert again.read("a/large").read_bytes() == content and again.read("none").read_bytes() == b""
    assert again.read("000001/c").read_text() == "c"
    files = {"a/large", "none", "000001/a", "000001/b", "000001/c"}
    assert files <= again.names() and {name for name in again.names() - files} <= {"a", "000001"}
    again.remove()
    assert again.names() == set() == work.names()


def test_a_folder_of_this_machine_has_its_files_where_they_are_read(tmp_path):
    work = Work(str(tmp_path))
    put(work, "x/file", b"1")
    assert work.read("x/file") == tmp_path / "x/file" and work.read("none") == tmp_path / "none"
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["file"]


def test_the_file_that_makes_a_folder_whole_comes_last(store):
    def folder():
        with Work(URL).publishing_folder("1", "b") as folder:
            for name in "abc":
                (folder / name).write_text(name)

    store.refuse = lambda method, path: DENIED if path.endswith("/c") and method != "GET" else None
    with pytest.raises(UserError, match=f"^{URL}/1/c: ACCESS_DENIED in PutObject: .*: give every node keys"):
        folder()
    assert Work(URL).names() == {"1/a"}
    store.refuse = lambda method, path: None
    folder()
    assert Work(URL).names() == {"1/a", "1/b", "1/c"} and store.paths("PUT")[-3:] == ["1/a", "1/c", "1/b"]


def test_a_node_fetches_a_file_once(store, forgetful, tmp_path):
    put(Work(URL), "large", b"x" * (1 << 20))
    forgetful(str(tmp_path / "of another node"))
    with running(3) as run:
        assert set(run(tasks.length, [(URL, "large")] * 12, str)) == {1 << 20}
    assert store.paths("GET") == ["large"]
    assert Work(URL).read("large").read_bytes() and store.paths("GET") == ["large"]


def test_what_was_fetched_goes_with_the_run_else_with_the_next_one_there(store, tmp_path):
    kept, other = tmp_path / "cache/work", Work(f"{URL}/other")
    put(Work(URL), "one", b"1")
    Work(URL).forget()
    assert list(kept.iterdir()) == []
    code = "from storyforge.core.storage import Work\n"
    code += f"Work({URL!r}).read('one')\nprint('there', flush=True)\ninput()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    assert process.stdout.readline() == "there\n"
    (folder,) = kept.iterdir()
    put(other, "two", b"2")
    assert (folder / "one").read_text() == "1"  # a process makes use of it
    process.kill()
    process.communicate()
    other.forget()
    assert [path.name for path in kept.iterdir()] == [folder.name]
    other.read("two")
    assert not folder.exists()


def test_a_file_that_is_not_there_is_said_and_leaves_nothing(store, tmp_path):
    with pytest.raises(
        UserError, match=f"^{URL}/none: it is there no more: has another clone the same `work`"
    ):
        Work(URL).read("none")
    assert [path for path in (tmp_path / "cache").rglob("*none*") if path.parent.name != "locks"] == []


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_busy_store_is_asked_again(store, method):
    put(Work(URL), "one", b"1" * 1000)
    Work(URL).forget()
    answers = [BUSY] * (storage.TRIES - 1)
    store.refuse = lambda made, path: answers.pop() if answers and made == method else None
    assert Work(URL).read("one").stat().st_size == 1000 and not answers


def test_a_store_that_stays_busy_is_one_line(store):
    store.refuse = lambda method, path: BUSY
    with pytest.raises(UserError, match=f"^{URL}/one: .*: the same command goes on from there") as raised:
        Work(URL).read("one")
    assert len(store.requests) == storage.TRIES and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"), [("AWS_ENDPOINT_URL", "http://… "), ("AWS_REGION", "no such region")]
)
def test_what_can_be_no_address_names_the_variables(store, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(
        UserError, match=r"^s3://\S+: .*: see that \$AWS_ENDPOINT_URL and \$AWS_REGION are right$"
    ):
        Work(URL).names()


@pytest.mark.parametrize(
    "ask", [Work.names, Work.remove, lambda work: work.read("one"), lambda w: put(w, "x", b"")]
)
def test_a_refusal_is_one_line_with_a_remedy(store, ask):
    put(Work(URL), "one", b"1")
    Work(URL).forget()
    store.refuse = lambda method, path: DENIED
    with pytest.raises(
        UserError, match=rf"^{URL}\S*: ACCESS_DENIED in \w+: .*: give every node keys"
    ) as raised:
        ask(Work(URL))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_a_bucket_that_is_not_there_is_named(store):
    with pytest.raises(
        UserError, match="^s3://other/x/one: NO_SUCH_BUCKET in .*: make that bucket, or correct"
    ):
        put(Work("s3://other/x"), "one", b"1")
    with pytest.raises(
        UserError, match="^s3://other/x: there is no bucket other: make that bucket, or correct"
    ):
        require_store("s3://other/x")
    require_store(URL)
    store.refuse = lambda method, path: DENIED
    with pytest.raises(UserError, match=f"^{URL}: ACCESS_DENIED in HeadBucket: .*: give every node keys"):
        require_store(URL)


@pytest.mark.parametrize(
    "ask", [Work.names, Work.remove, lambda work: work.read("one"), lambda w: put(w, "x", b"")]
)
def test_a_store_that_is_gone_is_one_line(store, ask):
    put(Work(URL), "one", b"1")
    Work(URL).forget()
    store.stop()
    with pytest.raises(UserError, match=rf"^{URL}\S*: NETWORK_CONNECTION in \w+: .*: see that it answers"):
        ask(Work(URL))


def test_a_store_that_is_silent_is_given_up(store, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(UserError, match=rf"^{URL}: NETWORK_CONNECTION in ListObjectsV2: .*: see that it"):
            Work(URL).names()
    assert time.monotonic() - start < 30


def test_a_store_that_takes_its_time_is_not_given_up(store):
    put(Work(URL), "one", b"1")
    store.refuse = lambda method, path: time.sleep(storage.SILENT_S - 1)
    assert Work(URL).names() == {"one"} and len(store.requests) < storage.TRIES


def test_a_folder_that_cannot_be_written_is_named(store, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("STORYFORGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=f"^{tmp_path}/file/work/.*: set STORYFORGE_CACHE to a folder"):
        Work(URL).read("one")


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://127.0.0.1:9", "http://"])
def test_an_endpoint_of_another_form_is_one_line(store, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UserError, match=f"^{URL}: ") as raised:
        Work(URL).names()
    assert "\n" not in str(raised.value)
