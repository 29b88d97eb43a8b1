"""What `qwenkit pass-at-k` does and prints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict

from qwenkit.errors import InputError
from qwenkit.files import expanded, replacing
from qwenkit.pretrained import load_pretrained
from qwenkit.programs import Score, generate_tasks, overlap, read_tasks, score
from qwenkit.train import read_documents


def pass_at_k(options: argparse.Namespace) -> Iterator[str]:
    """Yield how much of the tasks is in a text, if one is named, and the model's score."""
    if bool(options.tasks) == bool(options.split):
        raise InputError("name either --tasks FILE or --split, so that there is one set of tasks")
    if options.tasks and (options.families or options.count):
        raise InputError("--families and --count go with --split; a file's tasks are all taken")
    if options.split:
        count = options.count or 300
        tasks = generate_tasks(count, options.split, options.seed, options.families)
    else:
        tasks = read_tasks(options.tasks)
    if options.text:
        yield str(overlap(tasks, (one.text for one in read_documents(options.text))))
    ks = options.k or sorted({1, min(10, options.samples)})
    model, tokenizer = load_pretrained(options.model, device=options.device, dtype=options.dtype)
    found = score(
        model, tokenizer, tasks, samples=options.samples, ks=ks, temperature=options.temperature,
        max_new_tokens=options.max_new_tokens, batch_size=options.batch_size, seed=options.seed,
        seconds=options.seconds,
    )  # fmt: skip
    yield from found.table().splitlines()
    if options.out:
        _write(found, options.out)


def _write(found: Score, path: str) -> None:
    """Write a line per program."""
    rows = (
        {**asdict(one.task), "kind": kind, "program": one.task.prompt + sample.text,
         **asdict(sample.outcome)}
        for one in found.tasks
        for kind, samples in (("greedy", [one.greedy]), ("sample", one.samples))
        for sample in samples if sample
    )  # fmt: skip
    try:
        with replacing(expanded(path)) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
