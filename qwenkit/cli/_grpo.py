"""What `qwenkit grpo` does and prints."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import torch

from qwenkit.errors import CheckpointError, InputError
from qwenkit.files import expanded, replacing
from qwenkit.lora import add_lora, save_adapter
from qwenkit.lora.layers import TARGETS
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained import load_pretrained, save_pretrained
from qwenkit.programs import Task, families_of, generate_tasks, score
from qwenkit.tokenizer import Tokenizer
from qwenkit.train import GrpoMetrics, GrpoSettings, GrpoTrainer

# A larger rate teaches the family sooner, and costs more of what the model could do before.
DEFAULTS = GrpoSettings(steps=16, learning_rate=1e-5, max_new_tokens=96)
# The settings that are options: placeholder, help.
SETTINGS = {
    "steps": ("N", "batches of programs to learn from"),
    "learning_rate": ("X", "of AdamW; LoRA needs about 2e-4"),
    "prompts": ("P", "tasks in a step"),
    "group_size": ("G", "programs for each task"),
    "temperature": ("X", "of the programs"),
    "max_new_tokens": ("N", "of each program"),
    "beta": ("X", "weight of the distance from the model at the start"),
    "batch_size": ("N", "programs in one forward pass of learning; fewer take less memory"),
    "seed": ("N", "same seed, same run"),
}
_TASKS = 400  # to learn from
_MATRICES = tuple(name for name in TARGETS if name != "lm_head")


def grpo(options: argparse.Namespace) -> Iterator[str]:
    """Learn some families from tests; yield how many tasks pass before and after, and each step."""
    out = _new_folder(options.out)
    settings = GrpoSettings(**{name: getattr(options, name) for name in SETTINGS})
    learned, held_out, others = _tasks(options.families, options.count, options.seed)
    model, tokenizer = load_pretrained(options.model, device=options.device, dtype="float32")
    torch.manual_seed(options.seed)
    if options.lora:
        add_lora(model, rank=options.lora, alpha=2 * options.lora, targets=_MATRICES)
    else:
        model.requires_grad_(True)
    yield f"{len(learned)} tasks to learn from; {len(held_out)} others to measure by"
    sets = {"held-out tasks": held_out, "other families": others}
    yield from _passed(model, tokenizer, sets, "before", settings)
    steps: list[GrpoMetrics] = []
    try:
        for metrics in GrpoTrainer(model, tokenizer, learned, settings):
            steps.append(metrics)
            yield (
                f"step {metrics.step:3}: {metrics.reward:6.1%} pass, {metrics.silent:4.0%} of the "
                f"groups are silent, {metrics.length:.0f} tokens, {metrics.seconds:.1f} s"
            )
        yield from _passed(model, tokenizer, sets, "after", settings)
    finally:  # Ctrl-C too: what was learned is kept
        if steps:
            _save(model, tokenizer, out, steps, adapter=bool(options.lora))
    yield f"{'adapter' if options.lora else 'model'}    {out / 'model'}"
    yield f"metrics  {out / 'metrics.csv'}"


def _new_folder(path: str) -> Path:
    """Return the folder to write to, which must not hold anything."""
    out = expanded(path)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CheckpointError(f"{out} is there already; choose another --out")
    return out


def _tasks(
    families: Sequence[str], count: int, seed: int
) -> tuple[list[Task], list[Task], list[Task]]:
    """Return tasks to learn from, others of these families, and some of other families.

    Known families are learned in the wordings of the training, and measured in held-out ones.
    """
    known = {one.name for one in families_of("train")}
    learn, measure = ("train", "phrasing") if known.issuperset(families) else ("family", "family")
    drawn = generate_tasks(2 * _TASKS, learn, seed, families)
    learned = [task for task in drawn if '"""' in task.prompt][:_TASKS]  # it says what to do
    seen = {task.prompt for task in learned}
    drawn = generate_tasks(8 * count, measure, seed + 1, families)
    held_out = [task for task in drawn if task.prompt not in seen][:count]
    if not learned or not held_out:
        raise InputError(
            f"{', '.join(families)}: too few different tasks to hold some out; name more "
            "families, or others"
        )
    others = sorted(known.difference(families))
    return learned, held_out, generate_tasks(count, "phrasing", seed + 2, others)


def _passed(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    sets: dict[str, list[Task]],
    when: str,
    settings: GrpoSettings,
) -> Iterator[str]:
    """Yield pass@1 of each set of tasks, and how many of the most likely programs pass."""
    for name, tasks in sets.items():
        found = score(
            model, tokenizer, tasks, samples=4, ks=(1,), temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens, seed=settings.seed,
        )  # fmt: skip
        yield f"{when}: {name}: pass@1 {found.pass_at(1)}, greedy {found.greedy()}"


def _save(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    out: Path,
    steps: Sequence[GrpoMetrics],
    adapter: bool,
) -> None:
    if adapter:
        save_adapter(model, out / "model")
    else:
        save_pretrained(model, out / "model", tokenizer)
    path = out / "metrics.csv"
    try:
        with (
            replacing(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, [one.name for one in fields(GrpoMetrics)])
            writer.writeheader()
            writer.writerows(asdict(one) for one in steps)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror}") from None
