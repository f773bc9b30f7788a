import pytest

from storyforge.core.errors import UserError
from storyforge.core.files import write_json
from storyforge.export.manifest import MANIFEST, digests, require_ours


@pytest.fixture
def exported(tmp_path):
    folder = tmp_path / "tuned"
    for name in ("gguf/Modelfile", "merged/model.safetensors", "export.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    write_json(folder / MANIFEST, digests(folder))
    return folder


def test_what_an_export_wrote_may_be_replaced_and_an_empty_or_absent_folder_filled(exported, tmp_path):
    require_ours(exported)
    require_ours(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    require_ours(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("notes.txt", "was not written by an export"),
        ("merged/notes.txt", "was not written by an export"),
        ("gguf/Modelfile", "was changed since the export"),
        ("export.json", "was changed since the export"),
    ],
)
def test_the_first_file_that_is_not_ours_is_named(name, why, exported):
    (exported / name).write_text("my own")
    with pytest.raises(UserError, match=f"{name}: {why}: choose another --to"):
        require_ours(exported)


def test_a_link_is_not_ours(exported):
    (exported / "merged/link").symlink_to("nowhere")
    with pytest.raises(UserError, match="merged/link: was not written by an export"):
        require_ours(exported)


@pytest.mark.parametrize("manifest", [None, "", "{", "[]", "{}"])
def test_without_a_good_manifest_nothing_is_ours(manifest, exported):
    """export.json alone proves nothing: another program may have written it."""
    (exported / MANIFEST).unlink() if manifest is None else (exported / MANIFEST).write_text(manifest)
    with pytest.raises(UserError, match="no export of ours is recorded"):
        require_ours(exported)


def test_a_file_in_the_place_of_the_folder_is_kept(tmp_path):
    (tmp_path / "tuned").write_text("my own")
    with pytest.raises(UserError, match="is not a folder"):
        require_ours(tmp_path / "tuned")
