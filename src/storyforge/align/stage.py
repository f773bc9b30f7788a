"""Trains the tuned adapter further, on pairs of better and worse texts; it resumes as `train` does.

Reads   data/processed (val.jsonl; train.jsonl where human stories are mixed in), data/revised, models/tuned
Writes  models/aligned (the adapter, and training.json), metrics/align.json: the few figures of it to compare;
        a loss curve (TSV: one row a step). Where data/revised says that there is no second phase: that, alone
Params  model, sampling, align, tracking

What is compared with is the tuned writer, not the base: its NLLs are measured before the first step.
"""

from functools import partial
from pathlib import Path
from typing import Any

from storyforge.core import before_torch as before_torch
from storyforge.align.guards import Guards, guards, idle
from storyforge.align.items import Material, of_pairs, of_revisions
from storyforge.align.params import AlignParams
from storyforge.core.errors import UserError
from storyforge.core.files import published_folder, read_json, read_jsonl, write_json
from storyforge.core.launch import first_process, launch
from storyforge.core.records import Exchange, Pair
from storyforge.core.splits import read_split, split_files
from storyforge.model.bases import described
from storyforge.model.encoding import Encoder
from storyforge.model.loading import load_adapter, load_base, load_encoder, save_adapter
from storyforge.model.objectives import Objective, dpo, sft, simpo
from storyforge.model.params import ModelParams
from storyforge.sampling.generate import SamplingParams
from storyforge.train.checkpoints import discard
from storyforge.train.job import foretelling, job, lengths, ready, write_tsv
from storyforge.train.loop import train
from storyforge.train.run import Run, trainable

READ = (("pairs.jsonl", "sft.jsonl"), ("adapter_config.json", "adapter_model.safetensors"))


def main(
    processed: Path, revised: Path, tuned: Path, aligned: Path, metrics: Path, curve: Path
) -> dict[str, Any] | None:
    """Returns the figures that vary between runs."""
    model_params, params, sampling = ModelParams.load(), AlignParams.load(), SamplingParams.load()
    if read_json(revised / "report.json").get("off"):
        if first_process():
            _publish_off(aligned, metrics, curve)
        return None
    sections = {"model": model_params, "align": params, "sampling": sampling}
    choices = {name: section.model_dump(mode="json") for name, section in sections.items()}
    files = [file for name in ("train", "val") for file in split_files(processed, name)]
    files += [folder / name for folder, names in zip((revised, tuned), READ, strict=True) for name in names]
    with job("align", choices, files, model_params) as this:
        encoder = load_encoder(model_params)
        material = read(processed, revised, encoder, params)
        val, context = _read_val(processed), described(model_params).max_position_embeddings
        guard = guards(val, encoder, params, sampling, context=context)
        if this.main:
            print(*encoder.chat.remarks, _announced(material, params, guard), sep="\n")
        model = tuned_model(model_params, params, tuned)
        may_end = params.patience is not None or any(bound is not None for _, bound in params.guards)
        run = train(
            model,
            material.plan,
            material.held_out,
            model_params,
            params,
            work=this.work,
            log=foretelling(this.log, len(material.plan), may_end=may_end) if this.main else this.log,
            objective=objective_of(params),
            compared=material.items if params.objective.kind == "dpo" else (),
            guard=guard,
        )
        this.require_unchanged()
        if this.main:
            whole, compared = report(run, material, params)
            whole["tuned_sha256"] = this.written[f"{tuned.name}/adapter_model.safetensors"]
            with published_folder(aligned) as folder:
                save_adapter(folder, run.model, run.best, model_params)
                write_json(folder / "training.json", whole | this.unpinned(model_params))
            write_json(metrics, compared)
            write_tsv(curve, run.state.train)
            discard(this.work)
            if stopped := run.state.stopped:
                kept = f"the adapter of step {run.state.best_step} is kept"
                print(f"stopped after step {run.state.step}: align.guards.{stopped} was crossed: {kept}")
    return this.varying(run)


def _publish_off(aligned: Path, metrics: Path, curve: Path) -> None:
    with published_folder(aligned) as folder:
        write_json(folder / "training.json", {"off": True})
    write_json(metrics, {"steps": 0})
    write_tsv(curve, [])


def _read_val(processed: Path) -> list[Exchange]:
    if not (val := list(read_split(processed, "val"))):
        file = processed / "val.jsonl"
        raise UserError(f"{file} is empty, and the guards measure on it: raise preprocess.split.val")
    return val


def read(processed: Path, revised: Path, encoder: Encoder, params: AlignParams) -> Material:
    """What the objective is trained on."""
    if params.objective.kind == "sft":
        file, human = revised / "sft.jsonl", read_split(processed, "train")
        return of_revisions(file, list(read_jsonl(file, Exchange)), human, encoder, params)
    file = revised / "pairs.jsonl"
    return of_pairs(file, list(read_jsonl(file, Pair)), encoder, params)


def tuned_model(model_params: ModelParams, params: AlignParams, tuned: Path):
    """The base with the tuned adapter, ready to be trained further."""
    model = ready(lambda: load_adapter(load_base(model_params), tuned, model_params), params)
    model.set_adapter("default")  # as it was loaded, nothing of it would be trained
    return model


def objective_of(params: AlignParams) -> Objective:
    chosen = params.objective.model_dump(exclude={"kind", "human_share"})
    return {"sft": sft, "dpo": partial(dpo, **chosen), "simpo": partial(simpo, **chosen)}[
        params.objective.kind
    ]


def _announced(material: Material, params: AlignParams, guard: Guards) -> str:
    rows, what = [row for item in material.items for row in item], " and ".join(material.counts)
    said = lengths(what.replace("_", " "), sum(material.counts.values()), rows, params)
    off = idle(guard, paired=params.objective.kind != "sft")
    lines = [f"align.guards.{bound}: it cannot end this run" for bound in off]
    return "\n".join((f"{said}; {len(material.held_out):,} more held out", *lines))


def report(run: Run, material: Material, params: AlignParams) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that is told of the training, and the little of it that a person compares between experiments."""
    state = run.state
    val = {row["step"]: {name: round(value, 6) for name, value in row.items()} for row in state.val}
    before, after = val[0], val[state.best_step]
    compared = {
        "steps": state.step,
        "kept_step": state.best_step,
        **material.counts,
        "human_loss": {"tuned": before["human_loss"], "aligned": after["human_loss"]},
        "held_out_loss": after["loss"],
    }
    compared |= {"held_out_accuracy": after["accuracy"]} if "accuracy" in after else {}
    more = {
        "objective": params.objective.model_dump(mode="json"),
        "held_out": len(material.held_out),
        "stories": state.stories,
        "tokens": state.tokens,
        "reply_tokens": state.reply_tokens,
        "shortened_stories": sum(row.shortened for item in material.items for row in item),
        "trainable_parameters": sum(weight.numel() for weight in trainable(run.model)),
        "first_loss": round(state.train[0]["loss"], 6),
        "stopped": state.stopped,
        "validations": list(val.values()),
    }
    return compared | more, compared


if __name__ == "__main__":
    launch(main)
