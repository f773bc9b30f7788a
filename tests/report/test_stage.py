import hashlib
import re
from html import unescape
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from phase import ALIGNED, JUDGED, PAIR, REVISED, TEXTS, UNFIT

from storyforge.core.errors import UserError
from storyforge.core.files import write_json, write_jsonl
from storyforge.core.records import Exchange
from storyforge.report import stage

GAIN = {"nats_per_token": 0.3, "low": 0.2, "high": 0.4, "groups": 6}
PART = {
    "base": {"loss": 3.5, "perplexity": 33.1, "bits_per_byte": 1.5},
    "tuned": {"loss": 3.2, "perplexity": 24.5, "bits_per_byte": 1.4},
    "improvement": GAIN,
}
MEASURE = {
    "base": 0.5,
    "tuned": 0.6,
    "difference": {"value": 0.1, "low": -0.1, "high": 0.3, "groups": 8},
    "corpus": {"p1": 0.1, "p5": 0.2, "median": 0.5, "p95": 0.8, "p99": 0.9},
    "outside": [],
}
DETAILS = {
    **PART,
    "stories": 160,
    "sources": {"plays": PART},
    "groups": {"King Lear": PART},
    "general": PART,
    "general_kinds": {"news": PART},
    "prompt_use": None,
    "writing": {"samples": 1, "compared": 1, "measures": {"distinct_2": MEASURE}},
    "sampling": {"temperature": 0.8, "top_p": 0.95},
}
TRAIN = {
    "stories": 500,
    "tokens": 150_000,
    "reply_tokens": 100_000,
    "steps": 250,
    "trainable_parameters": 4_000_000,
    "validation": {"stories": 9, "base_loss": 3.6, "best_loss": 3.3, "best_step": 200},
}
SAMPLE = {
    "id": "x",
    "kind": "horror",
    "prompt": "Tell of <b>rain</b>.",
    "sample": 0,
    "seed": 7,
    "base": {"text": "<script>alert(1)</script>\n\nIt | rained.", "tokens": 9, "ended": True},
    "tuned": {"text": "Rain", "tokens": 220, "ended": False},
}
ACCOUNTS = {
    "splits": {"train": {"rows": 60, "words": 999, "groups": 5}},
    "sources": {"plays": {"drafts": 70, "rules": {"short": {"dropped": 10}}, "kept": {"train": 60}}},
}
ORIGIN = "hub:datasets/someone/plays@" + "0" * 40
COLLECTED = {"plays": {"stories": 80, "words": 1200, "licence": "CC0", "origin": ORIGIN}}
PARAMS = """\
# the choices of this run
model:
  name: someone/Small-Base
  origin: package:base==1.0:base.gguf
  system: Tell a story.
  chat: smollm2
  precision: auto
  quantization: none
train:
  seed: 7
  epochs: 1
  max_steps: null
  batch_stories: 2
  max_tokens: 640
  learning_rate: 2e-3
  schedule: linear
  warmup_share: 0.05
  lora: {r: 16, alpha: 32, dropout: 0.0, targets: all-linear}
evaluate: {opening_words: 100}
"""
NAMES = "params.yaml raw processed tuned evaluated revised aligned judged train.tsv val.tsv align.tsv reports"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """The paths of main(), relative as dvc.yaml gives them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    write_json(tmp_path / "raw" / "collection_report.json", COLLECTED)
    write_json(tmp_path / "processed" / "metadata.json", ACCOUNTS)
    for side, words in (("train", 30), ("val", 20), ("test", 10)):
        story = Exchange(side, "plays", "King Lear", "Tell.", "word " * words, True)
        write_jsonl(tmp_path / "processed" / f"{side}.jsonl", [story])
    write_json(tmp_path / "tuned" / "adapter_config.json", {"r": 16})
    write_jsonl(tmp_path / "evaluated" / "samples.jsonl", [SAMPLE])
    write_json(tmp_path / "evaluated" / "details.json", DETAILS)
    write_json(tmp_path / "tuned" / "training.json", TRAIN)
    rows = "".join(f"{n}\t{4 - n / 100}\n" for n in range(1, 60))
    (tmp_path / "train.tsv").write_text("step\tloss\n" + rows)
    (tmp_path / "val.tsv").write_text("step\tloss\n0\t3.9\n50\t3.5\n")
    (tmp_path / "align.tsv").write_text("step\tloss\taccuracy\n1\t0.69\t\n2\t0.5\t0.8\n")
    second_phase(tmp_path, REVISED, ALIGNED, JUDGED)
    return [*map(Path, NAMES.split())]


def second_phase(root, revised, aligned, judged):
    write_json(root / "revised" / "report.json", revised)
    write_jsonl(root / "revised" / "pairs.jsonl", [] if revised.get("off") else [PAIR])
    write_json(root / "aligned" / "training.json", aligned)
    write_json(root / "judged" / "details.json", judged)
    write_jsonl(root / "judged" / "texts.jsonl", TEXTS if judged.get("fit") else [])


@pytest.fixture
def made(workspace):
    stage.main(*workspace)
    return workspace[-1]


def test_a_rerun_gives_the_same_bytes(workspace, made):
    first = {file.name: file.read_bytes() for file in made.iterdir()}
    stage.main(*workspace)
    assert first == {file.name: file.read_bytes() for file in made.iterdir()}
    names = ("loss", "funnel", "lengths", "improvement", "writing", "rules", "align_loss")
    pictures = {f"{name}.png" for name in names}
    pages = {f"{name}.{kind}" for name in ("report", "judging") for kind in ("md", "html")}
    assert first.keys() == {"MODEL_CARD.md"} | pages | pictures
    assert not re.search(rb"tEXt|tIME", b"".join(first[name] for name in pictures))


def test_a_writers_words_are_never_markup(made):
    markdown, html = ((made / name).read_text() for name in ("report.md", "report.html"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;<br />" in html and "<script" not in html
    assert "Tell of &lt;b&gt;rain&lt;/b&gt;." in html and "It | rained." in html
    assert r"\<script\>alert(1)\</script\><br><br>It \| rained.<br>" in markdown
    assert r"> Tell of \<b\>rain\</b\>." in markdown


@pytest.mark.parametrize("name", ["report", "judging"])
def test_the_page_is_the_markdown(made, name):
    """Every word of the one is in the other."""
    read = MarkdownIt("commonmark").enable("table").render((made / f"{name}.md").read_text())
    page = (made / f"{name}.html").read_text().partition("<main>")[2]
    words = [re.findall(r"\w+", unescape(re.sub(r"<[^>]+>", " ", text))) for text in (read, page)]
    assert words[0] == words[1]


def test_the_report_begins_with_what_was_found_and_explains_its_terms(made):
    head = (made / "report.md").read_text().split("\n## ")[0]
    said = (
        "Tuning made Small-Base better at predicting stories that it was not trained on (160 held-out stories"
    )
    assert head.startswith(f"# Small-Base, tuned to tell stories\n\n- **Learned.** {said}")
    assert head.index("- **Lost.** ") < head.index("- **Next.** ") < head.index("A LoRA adapter")
    for term in ("LoRA (Hu et al. 2021)", "the adapter, which", "nats per token: the negative natural"):
        assert term in head


def test_the_last_line_names_the_report_and_the_next_step(workspace, capsys):
    stage.main(*workspace)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("reports/report.md: Tuning made Small-Base better at")
    assert line.endswith("Next: storyforge compare, or make demo")


def test_where_nothing_was_learned_the_last_line_sends_nobody_to_compare(workspace, capsys):
    validation = TRAIN["validation"] | {"best_step": 0}
    write_json(workspace[3] / "training.json", TRAIN | {"validation": validation})
    stage.main(*workspace)
    assert "Nothing: " in (said := capsys.readouterr().out) and "compare" not in said
    assert said.endswith("Next: the report says what to change\n")


def test_of_qlora_every_page_and_the_last_line_say_that_the_base_is_in_4_bits(workspace, capsys):
    params = Path("params.yaml").read_text()
    Path("params.yaml").write_text(params.replace("quantization: none", "quantization: nf4"))
    whole = PART | {"base": {"loss": 3.41, "perplexity": 30.3, "bits_per_byte": 1.47}}
    write_json(workspace[4] / "details.json", DETAILS | {"base_16bit": whole})
    stage.main(*workspace)
    (line,) = capsys.readouterr().out.splitlines()
    made = "Tuning made Small-Base in 4 bits better at predicting stories"
    beside = "the base in 16 bits has a loss of 3.410 nats per token, in 4 bits 3.500"
    assert made in line and beside in line
    for page in ("report.md", "report.html", "MODEL_CARD.md"):
        text = (workspace[-1] / page).read_text()
        assert made in text and beside in text, page
        assert "held-out stories, base in 16 bits" in text and "3.410 → 3.200" in text, page
    card = (workspace[-1] / "MODEL_CARD.md").read_text()
    assert "# A storyteller on Small-Base in 4 bits" in card and 'base_model: "someone/Small-Base"' in card


def test_markdown_and_html_tell_the_same_findings(made):
    for name in ("report.md", "report.html", "MODEL_CARD.md"):
        text = (made / name).read_text()
        assert "by 0.300 nats per token (95 % interval 0.200 to 0.400)" in text
        assert "160 held-out stories of 6 groups" in text and "500 stories from" in text


def test_every_picture_of_the_markdown_is_there(made):
    pages = (made / name for name in ("report.md", "judging.md"))
    shown = re.findall(r"\]\((\S+\.png)\)", "".join(page.read_text() for page in pages))
    assert sorted(shown) == sorted(file.name for file in made.glob("*.png"))


def test_the_report_says_what_was_trained_on_what(made):
    text = (made / "report.md").read_text()
    assert f"| plays | 80 | 1,200 | CC0 | `{ORIGIN}` |" in text
    assert "| plays | short | 10 | 14.29 % |" in text
    assert "| length | 1 epoch |" in text and "| learning rate | 0.002, linear, warm-up 5 % |" in text
    assert PARAMS.strip() in text  # with its comments, which tell the hardware and the time
    assert f"| params.yaml | `{hashlib.md5(PARAMS.encode()).hexdigest()}` |" in text


def test_the_report_does_not_depend_on_the_machine_that_trained(workspace):
    write_json(workspace[3] / "training.json", TRAIN | {"machine": {"device": "toaster"}})
    stage.main(*workspace)
    assert "toaster" not in (workspace[-1] / "report.md").read_text()


@pytest.mark.parametrize("home", ["home/ann.b", "Users/Ann", "root"])
def test_no_home_folder_stands_in_a_report(workspace, home):
    home = f"/{home}"
    workspace[0].write_text(PARAMS.replace("package:base==1.0:base.gguf", f"folder:{home}/base"))
    write_json(
        workspace[1] / "collection_report.json",
        {"plays": COLLECTED["plays"] | {"origin": f"folder:{home}/x"}},
    )
    stage.main(*workspace)
    for name in ("report.md", "report.html", "MODEL_CARD.md"):
        text = (workspace[-1] / name).read_text()
        assert home not in text and ("folder:~/base" in text or name == "MODEL_CARD.md")


def test_a_folder_has_the_hash_that_dvc_gives_it(tmp_path):
    for name, text in (("b.txt", "two"), ("a/c.txt", "one")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    listed = (
        '[{"md5": "f97c5d29941bfb1b2fdab0874906ab82", "relpath": "a/c.txt"}, '
        '{"md5": "b8a9f715dbb64fd5c56e7783c6820a61", "relpath": "b.txt"}]'
    )
    assert stage.fingerprint(tmp_path) == hashlib.md5(listed.encode()).hexdigest() + ".dir"


def test_the_hub_reads_the_model_card(made):
    card = ModelCard((made / "MODEL_CARD.md").read_text())
    assert card.data.base_model == "someone/Small-Base" and card.data.library_name == "peft"
    assert card.data.datasets == ["someone/plays"] and "license" not in card.data.to_dict()
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {"loss": 3.2, "perplexity": 24.5, "bits_per_byte": 1.4}
    assert "<|im_start|>system\nTell a story.<|im_end|>\n" in card.content and "plays: CC0" in card.content
    assert "With the hub's own weights it was not measured" in card.content


def test_a_name_with_quotes_and_line_ends_breaks_no_front_matter(workspace):
    hostile = 'a"b: c\n---\n# d'
    write_json(
        workspace[2] / "metadata.json", ACCOUNTS | {"sources": {hostile: ACCOUNTS["sources"]["plays"]}}
    )
    stage.main(*workspace)
    card = ModelCard((workspace[-1] / "MODEL_CARD.md").read_text())
    assert card.data.eval_results[0].dataset_name == f"held-out stories: {hostile}"
    assert "\n# d" not in card.content


def test_prompt_use_is_told_where_it_was_measured(workspace):
    both = {"own_prompt_first": 0.75}
    gain = {"value": 0.1, "low": 0.05, "high": 0.2, "groups": 6}
    use = {"stories": 24, "chance": 0.2, "base": both, "tuned": both, "shuffled_cost_gain": gain}
    write_json(workspace[4] / "details.json", DETAILS | {"prompt_use": use})
    stage.main(*workspace)
    assert "the prompt matters **more**" in (workspace[-1] / "report.md").read_text()


NOTHING = {
    "base": dict.fromkeys(PART["base"]),
    "tuned": dict.fromkeys(PART["tuned"]),
    "improvement": {"nats_per_token": None, "low": None, "high": None, "groups": 0},
}


def test_nothing_held_out_is_told_and_nothing_claimed(workspace):
    write_json(workspace[4] / "details.json", DETAILS | NOTHING | {"stories": 0, "sources": {}, "groups": {}})
    stage.main(*workspace)
    text = (workspace[-1] / "report.md").read_text()
    assert "This run does not show whether tuning made Small-Base better or worse" in text
    assert "with fewer than three works all are trained on" in text
    assert "| held-out stories |" not in text and "| general text |" in text
    card = ModelCard.load(workspace[-1] / "MODEL_CARD.md")
    assert not card.data.eval_results


def test_the_end_of_a_work_alone_is_told_to_be_no_other_work(workspace):
    write_json(workspace[2] / "metadata.json", ACCOUNTS | {"ends_held_out": ["novel_1.txt"]})
    stage.main(*workspace)
    for name in ("report.md", "MODEL_CARD.md"):
        assert "are the end of novel\\_1.txt, behind a gap" in (workspace[-1] / name).read_text()


def test_no_human_range_no_picture_of_it(workspace):
    measures = {"distinct_2": MEASURE | {"corpus": None}}
    write_json(
        workspace[4] / "details.json", DETAILS | {"writing": DETAILS["writing"] | {"measures": measures}}
    )
    stage.main(*workspace)
    assert not (workspace[-1] / "writing.png").exists()


CARED = "and nothing about quality"


def test_report_page_and_card_say_what_the_aligned_writer_is_with_the_caveat(made):
    for name in ("report.md", "report.html", "judging.md", "judging.html", "MODEL_CARD.md"):
        text = (made / name).read_text()
        assert "is the tuned adapter, trained further for 21 steps by direct preference" in text, name
        assert "0.861 → 0.885 of 1" in text and CARED in text, name


def test_each_page_links_to_the_other_one_of_its_kind(made):
    assert "](judging.md)" in (made / "report.md").read_text()
    assert 'href="judging.html"' in (made / "report.html").read_text()


@pytest.mark.parametrize(
    ("aligned", "judged", "said"),
    [({"off": True}, {"off": True}, "has no second phase"), (ALIGNED, UNFIT, "failed its trial")],
)
def test_a_phase_that_is_off_or_was_not_judged_has_no_figure(workspace, aligned, judged, said):
    second_phase(workspace[0].parent, {"off": True}, aligned, judged)
    workspace[-2].write_text("step\tloss\n")
    stage.main(*workspace)
    for name in ("report.md", "judging.md", "MODEL_CARD.md"):
        text = (workspace[-1] / name).read_text()
        assert said in text and "0.885" not in text and CARED not in text
    assert not {file.name for file in workspace[-1].iterdir()} & {"rules.png", "align_loss.png"}


@pytest.mark.parametrize("at", range(1, 11))
def test_a_missing_input_is_named_with_what_brings_it_and_the_old_report_stays(workspace, made, at):
    lost = workspace[at]
    for file in [lost] if lost.is_file() else list(lost.iterdir()):
        file.unlink()
    with pytest.raises(UserError, match=rf"^{lost.name}.*run `dvc repro"):
        stage.main(*workspace)
    assert (made / "report.md").exists()


def test_of_many_answers_the_first_to_each_of_the_first_prompts_are_shown(workspace):
    rows = [SAMPLE | {"prompt": f"p{n}.", "sample": k} for n in range(stage.MOST_PAIRS + 1) for k in range(2)]
    write_jsonl(workspace[4] / "samples.jsonl", rows)
    stage.main(*workspace)
    text = (workspace[-1] / "report.md").read_text()
    assert re.findall(r"^> (\w+)\.$", text, re.MULTILINE) == [f"p{n}" for n in range(stage.MOST_PAIRS)]
    said = f"first {stage.MOST_PAIRS} of {stage.MOST_PAIRS + 1} prompts"
    assert said in " ".join(text.split()) and "temperature 0.8, top p 0.95" in text
