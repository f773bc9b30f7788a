import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from storyforge.core.errors import UserError
from storyforge.core.files import read_json, read_jsonl, write_jsonl
from storyforge.core.records import Exchange, Pair
from storyforge.model.loading import adapter_weights, save_adapter
from storyforge.principles.scores import Scored
from storyforge.principles.scores import score as real_score
from storyforge.revise import stage
from storyforge.sampling import kept

ROOT = Path(__file__).parents[2]
SAMPLING = {
    "seed": 5,
    "max_new_tokens": 200,
    "temperature": 1.0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
ANY_PAIR = {"min_gap": 0.0, "slack": 1.0, "length_band": 1.0}
HELD_OUT = "Tell of the ferry that never came back to the bank."


def by_letters(principles, prompt, text, *, ended, corpus):
    """A score that any two texts of the tiny model differ in."""
    score = sum(map(ord, text)) % 997 / 997
    return Scored(score=score, checks={"letters": score, "words": 1 - score / 2})


@pytest.fixture
def workspace(tmp_path, monkeypatch, exchanges, model_params, tuned, loop_params, lora, revise_params):
    """A folder with everything the stage reads; returns a function that runs it there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORYFORGE_CHECKPOINT_DIR", str(tmp_path / "work"))
    near = replace(exchanges[0], id="near", group="near", prompt=f"{HELD_OUT} Go.")
    write_jsonl(tmp_path / "processed" / "train.jsonl", [*exchanges, near])
    write_jsonl(tmp_path / "processed" / "val.jsonl", exchanges[:1])
    write_jsonl(tmp_path / "processed" / "test.jsonl", [replace(exchanges[0], id="t", prompt=HELD_OUT)])
    save_adapter(tmp_path / "tuned", tuned, adapter_weights(tuned), model_params)
    shutil.copy(ROOT / "data" / "constitution.yaml", tmp_path)
    asked = {"id": "x", "kind": "x", "prompt": "Tell of 8 birds."}
    YAML().dump({"prompts": [asked]}, tmp_path / "prompts.yaml")
    monkeypatch.setattr(stage, "score", by_letters)
    training = {**loop_params.model_dump(mode="json"), "max_steps": 1, "lora": lora.model_dump(mode="json")}
    usual = {**revise_params.model_dump(mode="json"), **ANY_PAIR}

    def run(**changes):
        sections = {"model": model_params.model_dump(mode="json"), "train": training, "sampling": SAMPLING}
        YAML().dump({**sections, "revise": {**usual, **changes}}, tmp_path / "params.yaml")
        names = ("processed", "tuned", "prompts.yaml", "constitution.yaml", "out", "metrics.json")
        stage.main(*(tmp_path / name for name in names))
        return json.loads((tmp_path / "metrics.json").read_text())

    run.folder = tmp_path
    run.report = lambda: read_json(tmp_path / "out" / "report.json")
    run.rows = lambda name, kind=dict: list(read_jsonl(tmp_path / "out" / f"{name}.jsonl", kind))
    run.outputs = lambda: {file.name: file.read_bytes() for file in sorted((tmp_path / "out").iterdir())}
    return run


def leaves(tree):
    return sum(map(leaves, tree.values())) if isinstance(tree, dict) else 1


def test_pairs_of_unseen_prompts_are_written_with_their_scores(workspace, exchanges):
    """Of nine prompts one step trains on three, and two are held out: four are new at least."""
    metrics, report, pairs = workspace(prompts=4), workspace.report(), workspace.rows("pairs", Pair)
    assert metrics["pairs"] == len(pairs) == report["pairs"]["all"] > 0
    assert leaves(metrics) <= 5 and metrics["score"]["chosen"] > metrics["score"]["rejected"]
    assert report["prompts"]["answered"] == 4 and report["prompts"]["seen_by_train"] == 0
    assert report["drafts"]["texts"] == 16 and report["checks"]["letters"]["human"]["texts"] == 16
    assert {pair.prompt for pair in pairs} <= {row.prompt for row in exchanges}
    for pair in pairs:
        assert pair.meta["kind"] == "drafts" and pair.meta["gap"] >= 0
        assert pair.meta["side"] in ("train", "held_out") and pair.chosen != pair.rejected
    assert not workspace.rows("sft") and not list((workspace.folder / "work").glob("*/*.jsonl"))


def test_prompts_that_were_trained_on_fill_up_and_are_said(workspace, capsys):
    workspace(prompts=8)
    assert workspace.report()["prompts"]["seen_by_train"] == 3
    assert "trained on already: 3" in capsys.readouterr().out


def test_no_prompt_that_is_held_out_or_nearly_so_is_answered(workspace):
    workspace(prompts=100)
    report, asked = workspace.report(), {row["prompt"] for row in workspace.rows("pairs")}
    assert report["prompts"]["passed_over"]["nearly a held-out prompt"] == 3
    assert not asked & {HELD_OUT, f"{HELD_OUT} Go.", "Tell of 0 birds.", "Tell of 8 birds."}


def test_every_pair_that_could_be_is_there_or_refused_with_a_reason(workspace):
    workspace(min_gap=0.3, slack=0.3)
    report, refused = workspace.report(), workspace.rows("rejected")
    assert len(workspace.rows("pairs")) + len(refused) == 6 * 6  # six pairs of four drafts
    assert sum(report["reasons"].values()) == len(refused)
    assert {row["reason"] for row in refused} == set(report["reasons"])
    assert {"gap", "check"} <= set(report["reasons"])


def test_human_pairs_set_the_corpus_own_story_over_the_draft(workspace, exchanges):
    workspace(pairs="human", drafts=1, min_pairs=1)
    stories = {row.prompt: row.story for row in exchanges}
    pairs = workspace.rows("pairs", Pair)
    assert pairs and all(stories[pair.prompt].startswith(pair.chosen) for pair in pairs)
    assert {pair.meta["kind"] for pair in pairs} == {"human"}


def scripted(monkeypatch):
    """A critic that quotes the whole draft, and a reviser that says it with one word more."""

    def critic(requests, seeds, name):
        words = [asked.split("<draft>\n")[1].split("\n</draft>")[0].split() for asked in requests]
        return [
            reply(f"Severity: major\nQuote: {some[0]}\nFault: It is odd." if some else "") for some in words
        ]

    def reviser(requests, seeds, name):
        return [reply(f"{text_in(asked)} Rain.") for asked in requests]

    def text_in(request):
        return request.split("<draft>\n")[1].split("\n</draft>")[0]

    def reply(text):
        return kept.Written(text, 8, ended=True)

    monkeypatch.setattr(stage, "answering", lambda *_: (critic, reviser))


def test_accepted_revisions_are_pairs_and_exchanges(workspace, monkeypatch):
    scripted(monkeypatch)
    workspace(critic="model", drafts=1, overlap=[0.0, 1.0])
    pairs, stories = workspace.rows("pairs", Pair), workspace.rows("sft", Exchange)
    assert pairs and [pair.chosen for pair in pairs] == [story.story for story in stories]
    assert all(story.story.startswith(pair.rejected) for pair, story in zip(pairs, stories, strict=True))
    principles = workspace.report()["principles"]
    assert sum(counts.get("accepted", 0) for counts in principles.values()) == len(pairs)


def test_a_request_that_is_too_long_for_the_model_leaves_its_draft_and_is_counted(workspace):
    """The tiny model reads 512 bytes, and the critic's examples alone are more."""
    with pytest.raises(UserError, match="0 pairs, .*refused: no critique 12:"):
        workspace(critic="model", drafts=1)


def test_the_principles_score_the_drafts(workspace, monkeypatch):
    monkeypatch.setattr(stage, "score", real_score)
    with suppress(UserError):  # of the tiny model's noise there may be no pair
        workspace()
    rows = list(read_jsonl(workspace.folder / "processed" / "train.jsonl", Exchange))
    rules = stage.Rules(stage.read_constitution(workspace.folder / "constitution.yaml"), stage.corpus(rows))
    good = rules.score(rows[1].prompt, rows[1].story, True)
    bad = rules.score(rows[1].prompt, "Here is your story: " + "zxq " * 20, True)
    assert good.score > bad.score


def test_a_services_notice_is_printed_and_reported(workspace, monkeypatch, capsys):
    scripted(monkeypatch)
    calls = {"provider": "anthropic", "model": "claude-sonnet-5-5", "effort": None, "base_url": None}
    calls |= {"max_dollars": 1, "batch": False, "workers": 1}
    workspace(critic="api", calls=calls, drafts=1, overlap=[0.0, 1.0])
    assert capsys.readouterr().err.strip() == stage.NOTICE == workspace.report()["notice"]


def test_a_service_needs_to_be_named(workspace):
    with pytest.raises(UserError, match="params.yaml: revise = .*critic: api needs `calls`"):
        workspace(critic="api")


def test_one_draft_has_nothing_to_be_compared_with(workspace):
    with pytest.raises(UserError, match="set drafts to 2 or more"):
        workspace(drafts=1)


def test_no_prompts_is_no_second_phase_and_loads_no_model(workspace, monkeypatch):
    monkeypatch.setattr(stage, "load_base", None)
    assert workspace(prompts=0) == {"pairs": 0}
    assert workspace.report() == {"off": True}
    assert [workspace.rows(name) for name in ("pairs", "sft", "rejected")] == [[], [], []]


def test_params_for_a_gpu_do_not_start_on_a_cpu(workspace, monkeypatch, model_params):
    asked = model_params.model_copy(update={"quantization": "nf4"})
    monkeypatch.setattr(stage.ModelParams, "load", lambda: asked)
    monkeypatch.setattr("storyforge.model.device.device", lambda: torch.device("cpu"))
    monkeypatch.setattr(stage, "work_directory", lambda _: pytest.fail("began"))
    with pytest.raises(UserError, match="model.quantization = nf4 is for an NVIDIA GPU"):
        workspace()


def test_too_few_pairs_end_in_one_line_with_counts_and_remedy_and_keep_the_drafts(workspace, monkeypatch):
    with pytest.raises(UserError, match=r"0 pairs, of 6 prompts, .*min_pairs = 1; refused: gap 36: .*lower"):
        workspace(min_gap=1.0)
    assert not (workspace.folder / "out").exists()
    monkeypatch.setattr(kept, "write", None)
    assert workspace()["pairs"] > 0


class Killed(BaseException):
    """As a kill: nothing in the code catches it."""


@pytest.mark.parametrize("when", [1, 2, 4, 6])
def test_killed_after_any_batch_it_goes_on_and_ends_with_the_same_bytes(workspace, monkeypatch, when):
    """24 drafts in six batches; the kill comes before that batch is on the disk, as half of its line is."""
    monkeypatch.setattr(kept, "SIDE_BY_SIDE", 4)
    workspace()
    whole, append, batches = workspace.outputs(), kept._append, []
    shutil.rmtree(workspace.folder / "out")

    def dying(file, line):
        batches.append(file)
        if len(batches) == when:
            with file.open("ab") as torn:
                torn.write(line[: len(line) // 2])
            raise Killed
        append(file, line)

    monkeypatch.setattr(kept, "_append", dying)
    with pytest.raises(Killed):
        workspace()
    assert not (workspace.folder / "out").exists()
    workspace()
    assert len(batches) == 6 + 1 and workspace.outputs() == whole


def test_killed_before_the_work_is_discarded_it_writes_nothing_anew(workspace, monkeypatch):
    def dying(work):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(stage, "discard", dying)
        workspace()
    whole = workspace.outputs()
    monkeypatch.setattr(kept, "write", None)
    workspace()
    assert workspace.outputs() == whole
    assert not list((workspace.folder / "work").glob("*/*.jsonl"))


def test_a_broken_constitution_is_one_line_before_anything_is_written(workspace, monkeypatch):
    monkeypatch.setattr(stage, "load_base", None)
    (workspace.folder / "constitution.yaml").write_text("principles: [{id: x}]")
    with pytest.raises(UserError, match="constitution.yaml"):
        workspace()


def test_a_missing_adapter_is_one_clear_line(workspace):
    shutil.rmtree(workspace.folder / "tuned")
    with pytest.raises(UserError, match="adapter_config.json: .*run `dvc repro`"):
        workspace()


def test_no_prompt_that_may_be_answered_is_one_line_that_says_so(workspace, exchanges):
    train = list(read_jsonl(workspace.folder / "processed" / "train.jsonl", Exchange))
    write_jsonl(workspace.folder / "processed" / "test.jsonl", train)
    with pytest.raises(UserError, match=r"0 pairs, of 0 prompts \(6 are asked for\), are fewer"):
        workspace()
