"""The stage on a tiny model: what it writes, and when it writes that there is nothing to say."""

import json
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import hub
import pytest
import torch
from judges import KEY, MODEL, Judges, answered, interrupt
from pipeline import story
from ruamel.yaml import YAML

from storyforge.core.errors import UserError
from storyforge.core.files import read_json, read_jsonl, write_json, write_jsonl
from storyforge.core.records import Exchange
from storyforge.judge import stage
from storyforge.judge.gate import KINDS
from storyforge.judge.pairs import cut
from storyforge.judge.texts import Text, held_out
from storyforge.judging.calls import Answer
from storyforge.model.loading import adapter_weights, save_adapter
from storyforge.principles.constitution import applying, read_constitution
from storyforge.sampling import kept

ROOT = Path(__file__).parents[2]
SAMPLING = {
    "seed": 5,
    "max_new_tokens": 999,
    "temperature": 0.8,
    "top_p": 0.95,
    "min_p": 0.0,
    "repetition_penalty": 1.1,
}
CALLS = {"model": MODEL, "effort": None, "base_url": None, "max_dollars": 1, "batch": False, "workers": 1}
PARAMS = {"seed": 9, "prompts": 3, "samples": 2, "max_new_tokens": 24, "judge": "checks", "gate_pairs": 10}
WRITERS = ["base", "tuned", "aligned", "constitution"]


NAMES = ["Abelard", "Bertrand", "Columba", "Drusill", "Eustace", "Florian", "Griseld", "Hortense", "Ignati"]
KIN = ["son", "ina", "rik", "mund"]


def tale(number: int) -> Exchange:
    """Of somebody whom no other one tells of: another prompt's text shows."""
    who = f"{NAMES[number % 9]}{KIN[number // 9]}"
    lines = story(random.Random(number)).splitlines()
    text = "\n".join(f"{who} saw it. {said}" for said in lines)
    return Exchange(f"t{number}", "made", f"g{number}", f"Tell of {who}.", text, True)


@pytest.fixture
def workspace(tmp_path, monkeypatch, model_params, tuned):
    """A folder with everything the stage reads; returns a function that runs it there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORYFORGE_CHECKPOINT_DIR", str(tmp_path / "work"))
    write_jsonl(tmp_path / "processed" / "test.jsonl", map(tale, range(8)))
    write_jsonl(tmp_path / "processed" / "train.jsonl", map(tale, range(8, 30)))
    save_adapter(tmp_path / "tuned", tuned, adapter_weights(tuned), model_params)
    halved = {name: weight / 2 for name, weight in adapter_weights(tuned).items()}
    save_adapter(tmp_path / "aligned", tuned, halved, model_params)
    shutil.copy(ROOT / "data" / "constitution.yaml", tmp_path)
    monkeypatch.setattr(stage, "as_system", lambda principles: "Be brief.")

    def run(**changes):
        sections = {"model": model_params.model_dump(mode="json"), "sampling": SAMPLING}
        YAML().dump({**sections, "judge": {**PARAMS, "calls": CALLS, **changes}}, tmp_path / "params.yaml")
        names = ("processed", "tuned", "aligned", "constitution.yaml", "out", "metrics.json")
        stage.main(*(tmp_path / name for name in names))
        return json.loads((tmp_path / "metrics.json").read_text())

    run.folder = tmp_path
    run.details = lambda: read_json(tmp_path / "out" / "details.json")
    return run


def texts(workspace) -> list[Text]:
    return list(read_jsonl(workspace.folder / "out" / "texts.jsonl", Text))


def test_every_writer_answers_every_prompt_with_the_same_seeds(workspace):
    workspace()
    found = texts(workspace)
    for writer in WRITERS:
        mine = [text for text in found if text.writer == writer]
        assert len(mine) == 6 and len({text.seed for text in mine}) == 6
        assert [(text.prompt_id, text.sample, text.seed) for text in mine] == [
            (text.prompt_id, text.sample, text.seed) for text in found[:6]
        ]
        assert all(text.tokens == 24 or text.ended for text in mine) and not any(text.human for text in mine)
    written = [tuple(text.text for text in found if text.writer == writer) for writer in WRITERS]
    assert len(set(written)) == 4  # each is a writer of its own


def test_human_texts_stand_beside_with_as_many_tokens(workspace):
    workspace()
    human = [text for text in texts(workspace) if text.human]
    stories = {story.id: story for story in map(tale, range(8))}
    assert len(human) == 3 and {text.writer for text in human} == {"human"}
    assert all(text.tokens == 24 and not text.ended and text.seed is None for text in human)
    assert all(stories[text.prompt_id].story.startswith(text.text) for text in human)


def test_details_compare_the_writers_by_score_by_verdict_and_by_strength(workspace):
    metrics, details = workspace(), workspace.details()
    pairs = ["tuned-base", "aligned-tuned", "aligned-base", "aligned-constitution"]
    assert list(details["scores"]["writers"]) == [*WRITERS, "human"]
    assert list(details["scores"]["differences"]) == list(details["pairs"]) == pairs
    assert list(details["strengths"]) == list(details["diversity"]["writers"]) == WRITERS
    assert details["fit"] is True and details["prompts"] == 3 and details["samples"] == 2
    means = details["scores"]["writers"]
    for one, other in (pair.split("-") for pair in pairs):
        gap = details["scores"]["differences"][f"{one}-{other}"]["score"]
        assert gap["value"] == pytest.approx(means[one]["score"] - means[other]["score"], abs=2e-6)
        assert gap["groups"] == 3
        told = details["pairs"][f"{one}-{other}"]
        assert told["wins"] + told["losses"] + told["ties"] == 6 and told["position_bias"] == 0
    assert metrics["score_gain"].items() <= details["scores"]["differences"]["aligned-tuned"]["score"].items()
    assert metrics["win_rate"].items() <= details["pairs"]["aligned-tuned"]["win_rate"].items()
    assert metrics["judge"] == "checks" and metrics["fit"] is True
    assert len(metrics) - 2 + len(metrics["score_gain"]) + len(metrics["win_rate"]) == 9
    assert metrics["dollars"] == 0


def test_verdicts_are_kept_in_both_orders(workspace):
    workspace()
    verdicts = list(read_jsonl(workspace.folder / "out" / "verdicts.jsonl", dict))
    assert len(verdicts) == 4 * 3 * 2 * 2 and all(row["overall"] for row in verdicts)
    tried = list(read_jsonl(workspace.folder / "out" / "gate.jsonl", dict))
    assert {row["pair"][1] for row in tried} == {*KINDS, "planted"}


def test_the_line_at_the_end_says_what_was_found_where_and_how_much_could_be_seen(workspace, capsys):
    workspace()
    details, (line,) = workspace.details(), capsys.readouterr().out.splitlines()
    assert line.startswith("judge checks (rules kept, not quality): aligned-tuned: score ")
    assert f"{details['scores']['differences']['aligned-tuned']['score']['value']:+.3f} (" in line
    assert f"a true win rate of 0.61 is seen in {details['power']['seen']:.0%} of runs" in line
    assert "3 prompts × 2" in line and str(workspace.folder / "out") in line
    assert "not which text is better; the gate does not ask them about: shuffled, half, padded" in line


def test_a_second_run_writes_the_same_bytes(workspace):
    def content():
        workspace()
        return {path.name: path.read_bytes() for path in (workspace.folder / "out").iterdir()}

    first = content()
    assert sorted(first) == ["details.json", "gate.jsonl", "texts.jsonl", "verdicts.jsonl"]
    assert content() == first
    assert not list((workspace.folder / "work").glob("*/*.jsonl"))


def test_finished_writers_are_not_asked_again_after_a_stop(workspace, monkeypatch):
    workspace()
    whole = (workspace.folder / "out" / "texts.jsonl").read_bytes()
    asked, write = [], kept.write

    def counted(model, encoder, prompts, params, *, seeds):
        asked.append(len(prompts))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return write(model, encoder, prompts, params, seeds=seeds)

    monkeypatch.setattr(kept, "write", counted)
    with pytest.raises(KeyboardInterrupt):
        workspace()
    workspace()
    assert len(asked) == 3 + 2
    assert (workspace.folder / "out" / "texts.jsonl").read_bytes() == whole


def test_an_unfit_judge_ends_the_stage_well_and_nothing_else_is_reported(workspace, monkeypatch, capsys):
    monkeypatch.setattr(
        stage, "checks_judge", lambda *_: lambda asked: [Answer(None, "refusal")] * len(asked)
    )
    monkeypatch.setattr(stage, "load_writers", None)
    assert workspace() == {"judge": "checks", "fit": False}
    details = workspace.details()
    assert sorted(details) == ["fit", "gate", "judge", "usage", "why"] and details["fit"] is False
    assert details["why"] == "0.0% of 4 obvious pairs judged right, not 95%"
    assert (workspace.folder / "out" / "texts.jsonl").read_bytes() == b""
    assert len(list(read_jsonl(workspace.folder / "out" / "gate.jsonl", dict))) == 40
    assert "unfit" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["adapter", "stories"])
def test_without_an_aligned_writer_or_held_out_stories_it_is_off(workspace, monkeypatch, capsys, missing):
    monkeypatch.setattr(stage, "load_writers", None)
    if missing == "stories":
        write_jsonl(workspace.folder / "processed" / "test.jsonl", [])
    else:
        for file in (workspace.folder / "aligned").iterdir():
            file.unlink()
        write_json(workspace.folder / "aligned" / "training.json", {"off": True})
    assert workspace() == {"judge": None}
    assert workspace.details()["off"] is True
    assert "nothing is judged" in capsys.readouterr().out


def test_a_constitution_that_leaves_no_room_is_left_out_and_said(workspace, monkeypatch):
    monkeypatch.setattr(stage, "as_system", lambda principles: "Be brief. " * 60)
    workspace()
    details = workspace.details()
    assert list(details["scores"]["writers"]) == ["base", "tuned", "aligned", "human"]
    assert list(details["pairs"]) == ["tuned-base", "aligned-tuned", "aligned-base"]
    assert any("constitution: the model has no room" in said for said in details["warnings"])


def test_a_prompt_that_no_writer_can_read_is_refused_before_anything_is_written(workspace, monkeypatch):
    monkeypatch.setattr(kept, "write", None)
    long = [replace(one, prompt=one.prompt + "!" * 600) for one in map(tale, range(8))]
    write_jsonl(workspace.folder / "processed" / "test.jsonl", long)
    with pytest.raises(UserError, match="^a prompt of 6.. tokens and a reply of 24 are more than the 512"):
        workspace()


def test_prompts_are_different_and_chosen_by_hash_not_by_position():
    stories = [tale(n) for n in range(8)]
    doubled = [*stories, replace(stories[0], id="twin")]
    found = held_out(doubled, 5, seed=1)
    assert held_out(doubled[::-1], 5, seed=1) == found and len({story.prompt for story in found}) == 5
    assert held_out(doubled, 8, seed=1)[:5] == found and len(held_out(doubled, 99, seed=1)) == 8


def test_too_few_gate_pairs_are_refused(workspace):
    with pytest.raises(UserError, match="judge.gate_pairs = 4"):
        workspace(gate_pairs=4)


def by_a_service(calls, **_):
    """What stands first in the alphabet is better; one in every ten calls is refused."""
    found = []
    for number, call in enumerate(calls):
        a, b = (call.text.split(f"ANSWER {side}]\n")[1] for side in "AB")
        one = {"better": "tie" if a == b else "A" if a < b else "B", "margin": 2}
        single = dict.fromkeys(call.schema["properties"]["principles"]["properties"], one)
        value = {"principles": single, "overall": one}
        found.append(Answer(None, "refusal") if number % 10 == 9 else Answer(value, None))
    return found


def test_a_paid_judge_counts_what_is_missing_what_it_cost_and_how_steady_it_is(workspace, monkeypatch):
    asked = []

    def usage(calls, **_):
        asked.extend(calls)
        return {
            "calls": len(calls),
            "dollars": 0.5,
            "by_label": {},
            "unsettled": 2,
            "warnings": ["old model"],
        }

    monkeypatch.setattr("storyforge.judge.verdicts.ask", by_a_service)
    monkeypatch.setattr(stage, "gate", lambda judge, pairs, claimed: ({"why": None, "kinds": claimed}, []))
    monkeypatch.setattr(stage, "usage", usage)
    metrics = workspace(judge="openai", calls=CALLS | {"repeats": 1})
    details = workspace.details()
    assert len(asked) == 4 * 6 * 2 * 2 and metrics["judge"] == "openai"
    assert details["gate"]["kinds"] == list(KINDS)
    assert details["usage"] == {"calls": 96, "dollars": 0.5, "by_label": {}, "warnings": ["old model"]}
    assert details["warnings"][0] == "old model" and not any("checks" in said for said in details["warnings"])
    told = details["pairs"].values()
    assert sum(pair["missing"] for pair in told) > 0 and all(pair["self_consistency"] == 1 for pair in told)
    assert all(pair["wins"] + pair["losses"] + pair["ties"] + pair["missing"] == 6 for pair in told)
    kept = list(read_jsonl(workspace.folder / "out" / "verdicts.jsonl", dict))
    assert [row["repeat"] for row in kept[:4]] == [0, 0, 1, 1]
    assert sum(row["why"] == "refusal" for row in kept) == 9


def test_what_may_have_been_paid_twice_is_no_output(workspace, monkeypatch):
    """It depends on kills: the stage's timing file takes it."""
    monkeypatch.setattr(stage, "usage", lambda calls, **_: {"unsettled": 3, "warnings": []})
    params = stage.JudgeParams(**PARAMS | {"judge": "openai", "calls": CALLS})
    spent, unsettled = stage._usage(stage.Choices(None, params, None, ()), [])
    assert unsettled == 3 and "unsettled" not in spent


PART = re.compile(r"\[([0-9a-f]{16}) (REQUEST|ANSWER A|ANSWER B)\]\n(.*?)\n\[\1 END OF \2\]", re.DOTALL)


def reader(asked: str) -> str:
    """Whole beginnings of the story that was asked for are better; all else goes by the alphabet."""
    request, *texts = (text for _, _, text in PART.findall(asked))
    own = next((story.story for story in map(tale, range(8)) if story.prompt == request), "")
    whole = [own.startswith(text) and cut(text, 10**6) == text for text in texts]
    first = whole[0] if whole[0] != whole[1] else texts[0] < texts[1]
    one = {"better": "tie" if texts[0] == texts[1] else "A" if first else "B", "margin": 2}
    principles = applying(read_constitution(ROOT / "data" / "constitution.yaml"), request)
    return json.dumps({"principles": {each.id: one for each in principles}, "overall": one})


@pytest.fixture
def service(monkeypatch, tmp_path):
    hub.isolate(monkeypatch, tmp_path / "cache")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with Judges(verdict=reader).running() as stand_in:
        yield stand_in


def served(workspace, service):
    """Few calls: each is put on the disk before it counts."""
    calls = CALLS | {"base_url": f"{service.url}/v1", "workers": 4, "max_wait_s": 0.01, "timeout_s": 20}
    return workspace(judge="openai", calls=calls, gate_pairs=5, prompts=3, samples=1)


def test_a_service_is_tried_on_obvious_pairs_and_then_judges_each_pair_in_both_orders(workspace, service):
    assert served(workspace, service)["fit"] is True
    details = workspace.details()
    assert details["gate"]["right"] == 1 and details["gate"]["counted"] == 5
    assert details["gate"]["planted"] == {"pairs": 5, "moved": 0, "missing": 0}
    assert all(pair["missing"] == 0 == pair["position_bias"] for pair in details["pairs"].values())
    assert len(service.paid) == details["usage"]["calls"] <= (5 + 5 + 4 * 3) * 2
    labels = {"gate-loop", "gate-planted", "tuned-base", "aligned-constitution"}
    assert labels <= set(details["usage"]["by_label"])
    assert not any(KEY in file.read_text() for file in (workspace.folder / "out").iterdir())


def test_what_was_answered_before_a_stop_is_not_paid_again(workspace, service):
    service.faults = [answered] * 30 + [lambda *_: interrupt()]
    with pytest.raises(KeyboardInterrupt):
        served(workspace, service)
    served(workspace, service)
    stopped = {file.name: file.read_bytes() for file in (workspace.folder / "out").iterdir()}
    before = len(service.paid)
    assert before == len(set(service.paid))
    served(workspace, service)
    assert len(service.paid) == before
    assert {file.name: file.read_bytes() for file in (workspace.folder / "out").iterdir()} == stopped


def test_params_for_a_gpu_do_not_start_on_a_cpu(workspace, monkeypatch, model_params):
    """Before a judge is paid for its gate."""
    asked = model_params.model_copy(update={"quantization": "nf4"})
    monkeypatch.setattr(stage.ModelParams, "load", lambda: asked)
    monkeypatch.setattr("storyforge.model.device.device", lambda: torch.device("cpu"))
    monkeypatch.setattr(stage, "gate", lambda *_: pytest.fail("asked the judge"))
    with pytest.raises(UserError, match="model.quantization = nf4 is for an NVIDIA GPU"):
        workspace()


def test_a_service_that_likes_the_first_place_is_unfit_and_costs_the_gate_alone(workspace, service):
    always = {"better": "A", "margin": 5}
    right = service.verdict

    def first(asked):
        said = json.loads(right(asked))
        return json.dumps({"principles": dict.fromkeys(said["principles"], always), "overall": always})

    service.verdict = first
    assert served(workspace, service) == {"judge": "openai", "fit": False}
    details = workspace.details()
    assert details["why"] == "0.0% of 5 obvious pairs judged right, not 95%"
    assert details["usage"]["calls"] == len(service.paid) <= 20


def test_a_server_that_is_not_there_is_one_line_before_anything_is_written(workspace, monkeypatch, tmp_path):
    hub.isolate(monkeypatch, tmp_path / "cache")
    with pytest.raises(UserError, match="base_url"):
        workspace(judge="openai", calls=CALLS | {"base_url": f"{hub.NOWHERE}/v1"})
    assert not (workspace.folder / "out").exists() and not (workspace.folder / "work").exists()
