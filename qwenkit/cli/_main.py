"""The command line: qwenkit doctor | inspect | forward | generate | train | lab."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from qwenkit import __version__
from qwenkit.checkpoint import Checkpoint
from qwenkit.cli._reports import doctor, forward, inspect
from qwenkit.errors import InputError, QwenkitError, SourceError
from qwenkit.generate import beam_search, stream
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained import load_pretrained, resolve
from qwenkit.tokenizer import Tokenizer
from qwenkit.train import train

FILL = "<fill>"
# What beam search does not take: option, and its value where it was not given.
NOT_WITH_BEAMS: dict[str, object] = {
    "temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0,
    "seed": None, "stop": [],
}  # fmt: skip
SOURCE = "folder or Hub id (default: $QWENKIT_MODEL, else the embedded tiny-coder)"
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 when all went well, 1 on an error or a problem found."""
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except QwenkitError as error:
        print(f"qwenkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nqwenkit: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _doctor(options: argparse.Namespace) -> int:
    facts, problems = doctor()
    _print([f"qwenkit      {__version__}", *facts, ""])
    _print([f"PROBLEM  {problem}" for problem in problems] or ["no problems found"])
    return 1 if problems else 0


def _inspect(options: argparse.Namespace) -> int:
    checkpoint = Checkpoint(resolve(options.folder))
    _print(inspect(checkpoint, options.tensors))
    problems = checkpoint.problems()
    _print(["", f"PROBLEMS  {len(problems) or 'none'}", *(f"  {problem}" for problem in problems)])
    return 1 if problems else 0


def _forward(options: argparse.Namespace) -> int:
    prompt = _prompt(options)
    model, tokenizer = load_pretrained(options.model, device=options.device, dtype=options.dtype)
    _print(forward(model, tokenizer, prompt, options.top))
    return 0


def _generate(options: argparse.Namespace) -> int:
    prompt = _prompt(options)
    before, after = prompt, ""
    if options.fim:
        if prompt.count(FILL) != 1:
            raise InputError(f"with --fim the prompt must hold {FILL} once, where text is wanted")
        before, after = prompt.split(FILL)
    for name, off in NOT_WITH_BEAMS.items():
        if options.beams and getattr(options, name) != off:
            flag = name.replace("_", "-")
            raise InputError(f"--beams looks for the likeliest text; leave out --{flag}")
    model, tokenizer = load_pretrained(options.model, device=options.device, dtype=options.dtype)
    stop_ids = model.stop_ids
    if options.fim:
        prompt = tokenizer.fim(before, after)
        stop_ids = (*model.stop_ids, *tokenizer.fim_stop_ids)
    elif options.chat:
        before, prompt = "", tokenizer.chat([{"role": "user", "content": prompt}])
    pieces = _pieces(model, tokenizer, prompt, stop_ids, options)
    print(before, end="", flush=True)
    for piece in pieces:
        print(piece, end="", flush=True)
    print(after)
    return 0


def _pieces(
    model: QwenForCausalLM,
    tokenizer: Tokenizer,
    prompt: str,
    stop_ids: Collection[int],
    options: argparse.Namespace,
) -> Iterable[str]:
    """Return the new text as it comes; that of a beam search comes at once."""
    length: dict[str, Any] = {"max_new_tokens": options.max_new_tokens, "stop_ids": stop_ids}
    if options.beams:
        best = beam_search(model, tokenizer(prompt), num_beams=options.beams, **length)[0]
        ids = best.ids[:-1] if best.finished else best.ids  # the stop token is no text
        return [tokenizer.decode(ids, skip_special=True)]
    return stream(
        model,
        tokenizer,
        prompt,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        repetition_penalty=options.repetition_penalty,
        stop_strings=options.stop,
        seed=options.seed,
        **length,
    )


def _train(options: argparse.Namespace) -> int:
    trainer = train(
        options.recipe, options.out, text=options.text, resume=options.resume, device=options.device
    )
    folder = Path(options.out)
    _print([f"metrics  {folder / 'metrics.csv'}", f"model    {folder / 'model'}"])
    done = f"step {trainer.step} of {trainer.settings.steps}"
    if not trainer.interrupted or trainer.step == trainer.settings.steps:
        _print([f"ended at {done}: {trainer.stopping or 'all done'}", "try it:"])
        _print([f"  qwenkit generate 'def main():' --model {shlex.quote(str(folder / 'model'))}"])
        return 0
    _print([f"{trainer.stopping} after {done}; all is saved"])
    text = f" --text {shlex.quote(str(options.text))}" if options.text else ""
    names = [shlex.quote(str(name)) for name in (options.recipe, options.out)]
    _print(["go on with:", f"  qwenkit train {names[0]} --out {names[1]}{text} --resume"])
    return 130


def _lab(options: argparse.Namespace) -> int:
    first = NOTEBOOKS / "00_start_here.ipynb"
    if not first.is_file():
        raise SourceError(
            f"{first} does not exist; the notebooks come with a clone of the repository, "
            "not with the installed package: clone it and run `make lab` there"
        )
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={NOTEBOOKS.parent}"]
    command += [f"--ServerApp.port={options.port}"]
    command += [f"--LabApp.default_url=/lab/tree/notebooks/{first.name}"]  # in the printed address
    command += ["--no-browser"] if options.no_browser else []
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # containers; Jupyter refuses it otherwise
        command.append("--allow-root")
    command += options.jupyter
    if os.name != "posix":
        return subprocess.call(command)
    sys.stdout.flush()
    os.execv(command[0], command)  # become Jupyter: Ctrl-C and signals reach it, and it alone


def _prompt(options: argparse.Namespace) -> str:
    """Return the prompt; "-" reads it from standard input."""
    prompt = sys.stdin.read() if options.prompt == "-" else str(options.prompt)
    if not prompt:
        raise InputError("the prompt is empty; give at least one character")
    return prompt


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qwenkit",
        description="Look inside Qwen2.5-Coder, and run it.",
        epilog="`qwenkit COMMAND --help` shows each command's options and examples.",
    )
    parser.add_argument("--version", action="version", version=f"qwenkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str, *examples: str) -> argparse.ArgumentParser:
        lines = "\n".join(f"  qwenkit {example}" for example in examples)
        made = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"examples:\n{lines}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        return made

    command("doctor", _doctor, "say what this machine has, and what is wrong with it", "doctor")
    made = command(
        "inspect", _inspect, "show a checkpoint's config, parameters and tensors, and check them",
        "inspect ./my-model", "inspect Qwen/Qwen2.5-Coder-0.5B --tensors",
    )  # fmt: skip
    made.add_argument("folder", nargs="?", help=SOURCE)
    made.add_argument("--tensors", action="store_true", help="one line for every single tensor")
    made = command(
        "forward", _forward, "show the shapes on a prompt's way through the model",
        'forward "def fib(n):"', 'forward "import numpy as" --top 10',
    )  # fmt: skip
    _model_options(made)
    made.add_argument("--top", type=_count, default=5, help="how many next tokens (default: 5)")
    made = command(
        "generate", _generate, "continue a text, token by token",
        'generate "def fib(n):" --max-new-tokens 80',
        'generate --chat "What is a closure?" --temperature 0.7 --seed 1',
        f"generate --fim 'def add({FILL}):\\n    return a + b'",
        'generate "import numpy as" --beams 4 --max-new-tokens 16',
        "generate - < prompt.py",
    )  # fmt: skip
    _model_options(made)
    _generate_options(made)
    made = command(
        "train", _train, "train a model from a recipe and a folder of text",
        "train data/tiny-coder/recipe.toml --out runs/mine",
        "train my.toml --text ./my-code --out runs/mine",
        "train my.toml --text ./my-code --out runs/mine --resume",
    )  # fmt: skip
    made.add_argument("recipe", help="a TOML file: model, data, training")
    made.add_argument("--out", required=True, metavar="FOLDER", help="where all results go")
    made.add_argument(
        "--text", metavar="FOLDER", help="the text; stdlib: Python's own (default: the recipe's)"
    )
    made.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint in FOLDER"
    )
    made.add_argument("--device", default="auto", help="auto, cpu, mps (default: auto)")
    made = command(
        "lab", _lab, "open JupyterLab on the first notebook", "lab", "lab --port 8900 --no-browser"
    )  # fmt: skip
    made.add_argument("--port", type=int, default=8888, help="(default: 8888)")
    made.add_argument("--no-browser", action="store_true", help="only start the server")
    made.add_argument("jupyter", nargs="*", help="further options for JupyterLab, after --")
    return parser


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help='the text; "-" reads it from standard input')
    parser.add_argument("--model", metavar="SOURCE", help=SOURCE)
    parser.add_argument("--device", default="auto", help="auto, cpu, mps (default: auto)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16, float16, int8")


def _generate_options(parser: argparse.ArgumentParser) -> None:
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--chat", action="store_true", help="the prompt is a message to an assistant")
    kind.add_argument(
        "--fim", action="store_true", help=f"fill in what {FILL} in the prompt stands for"
    )

    def option(name: str, metavar: str, kind: type, default: object, text: str) -> None:
        parser.add_argument(name, type=kind, default=default, metavar=metavar, help=text)

    parser.add_argument(
        "--max-new-tokens", type=_count, default=128, metavar="N", help="(default: 128)"
    )
    option("--temperature", "X", float, 0.0, "0: always the likeliest token (default)")
    option("--top-k", "K", int, 0, "only the K likeliest (default 0: all)")
    option("--top-p", "P", float, 1.0, "only the likeliest up to probability P (default: 1)")
    option("--min-p", "P", float, 0.0, "only those at least P times the likeliest (default: 0)")
    option("--repetition-penalty", "X", float, 1.0, "above 1: fewer repetitions (default: 1)")
    option("--seed", "N", int, None, "same seed, same text")
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT",
        help="end before this text; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--beams", type=_count, metavar="N",
        help="search with N beams for the likeliest text; not with the choices above",
    )  # fmt: skip


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; it must be a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
