"""The command line: each command, its options, and what it runs."""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from qwenkit import __version__
from qwenkit.checkpoint import Checkpoint
from qwenkit.cli._grpo import DEFAULTS, SETTINGS, grpo
from qwenkit.cli._lab import COPIES, lab
from qwenkit.cli._programs import pass_at_k
from qwenkit.cli._reports import doctor, forward, inspect
from qwenkit.cli._serve import LIMITS, TOKEN, serve
from qwenkit.device import DTYPES
from qwenkit.errors import InputError, QwenkitError
from qwenkit.generate import beam_search, default_stops, stream
from qwenkit.model import QwenForCausalLM
from qwenkit.pretrained import load_pretrained, resolve, save_pretrained
from qwenkit.programs.generator import SPLITS
from qwenkit.serve.http import Limits
from qwenkit.tokenizer import Tokenizer
from qwenkit.train import average, train

FILL = "<fill>"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0 on success, 1 on an error or a problem found."""
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal that cannot show all of Unicode
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()  # so that a full disk is told below
        return code
    except QwenkitError as error:
        print(f"qwenkit: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nqwenkit: stopped", file=sys.stderr)
        return 130
    except OSError as error:  # standard output cannot be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # a reader such as `head` closed the pipe
            return 0
        print(f"qwenkit: {error.strerror or error}", file=sys.stderr)
        return 1


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
    if options.beams:
        used = [name for name, row in _SAMPLING.items() if getattr(options, name) != row[1]]
        for name in used + ["stop"] * bool(options.stop):
            flag = name.replace("_", "-")
            raise InputError(f"--beams looks for the most likely text; leave out --{flag}")
    model, tokenizer = load_pretrained(options.model, device=options.device, dtype=options.dtype)
    stop_ids = tuple(default_stops(model, tokenizer))
    if options.fim:
        prompt = tokenizer.fim(before, after)
        stop_ids += tokenizer.fim_stop_ids
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
    """Return the new text as it is generated; beam search yields it at once."""
    end: dict[str, Any] = {
        "max_new_tokens": options.max_new_tokens, "stop_ids": stop_ids,
        "cache_dtype": options.cache_dtype,
    }  # fmt: skip
    if options.beams:
        best = beam_search(model, tokenizer(prompt), num_beams=options.beams, **end)[0]
        ids = best.ids[:-1] if best.finished else best.ids  # the stop token is not text
        return [tokenizer.decode(ids, skip_special=True)]
    sampling: dict[str, Any] = {name: getattr(options, name) for name in _SAMPLING}
    return stream(model, tokenizer, prompt, stop_strings=options.stop, **sampling, **end)


def _train(options: argparse.Namespace) -> int:
    trainer = train(
        options.recipe, options.out, text=options.text, start=options.start, resume=options.resume,
        device=options.device,
    )  # fmt: skip
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


def _average(options: argparse.Namespace) -> int:
    loaded = [load_pretrained(one, device="cpu", dtype="float32") for one in options.models]
    mean = average([model for model, _ in loaded], options.shares)
    save_pretrained(mean.to(DTYPES[options.dtype]), options.out, loaded[0][1])
    _print([f"model    {Path(options.out)}"])
    return 0


def _pass_at_k(options: argparse.Namespace) -> int:
    _print(pass_at_k(options))
    return 0


def _grpo(options: argparse.Namespace) -> int:
    _print(grpo(options))
    return 0


def _serve(options: argparse.Namespace) -> int:
    serve(options)
    return 0


def _lab(options: argparse.Namespace) -> int:
    complete = None
    if options.complete is not None:
        resolve(options.complete or None)  # what does not exist is told here, not in a log
        complete = [*filter(None, [options.complete]), f"--dtype={options.dtype}"]
    browser = not options.no_browser
    return lab(options.folder, options.port, browser, options.jupyter, complete)


def _prompt(options: argparse.Namespace) -> str:
    """Return the prompt; "-" reads it from standard input."""
    try:
        prompt = sys.stdin.read() if options.prompt == "-" else str(options.prompt)
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not {error.encoding} text") from None
    if not prompt:
        raise InputError("the prompt is empty; give at least one character")
    return prompt


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)  # a line may take minutes, and a pipe would hold it back


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; it must be an integer of at least 1")
    return int(text)


Option = tuple[str, dict[str, Any]]
Command = Callable[[argparse.Namespace], int]


def _option(name: str, text: str, **settings: Any) -> Option:
    """Return what `add_argument` takes."""
    return name, {"help": text, **settings}


def _switch(name: str, text: str) -> Option:
    return _option(name, text, action="store_true")


_SOURCE = "folder, GGUF file or Hub id (default: $QWENKIT_MODEL, else the embedded tiny-coder)"
_DEVICE = _option("--device", "auto, cpu, mps (default: auto)", default="auto")
_MODEL = (
    _option("prompt", 'the text; "-" reads it from standard input'),
    _option("--model", _SOURCE, metavar="SOURCE"),
    _DEVICE,
    _option("--dtype", "auto, float32, bfloat16, float16, int8, int4", default="auto"),
)
# Options of sampling, which beam search does not take: type, default, placeholder, help.
_SAMPLING: dict[str, tuple[type, object, str, str]] = {
    "temperature": (float, 0.0, "X", "0: always the most likely token (default)"),
    "top_k": (int, 0, "K", "only the K most likely (default 0: all)"),
    "top_p": (float, 1.0, "P", "only the most likely up to probability P (default: 1)"),
    "min_p": (float, 0.0, "P", "only those at least P times the most likely (default: 0)"),
    "repetition_penalty": (float, 1.0, "X", "above 1: fewer repetitions (default: 1)"),
    "seed": (int, None, "N", "same seed, same text"),
}
# Name, function, help, examples, options, and options that exclude each other.
_COMMANDS: list[tuple[str, Command, str, list[str], list[Option], list[Option]]] = [
    ("doctor", _doctor, "report what this machine has, and what is wrong with it", ["doctor"],
     [], []),
    ("inspect", _inspect, "show a checkpoint's config, parameters and tensors, and check them",
     ["inspect ./my-model", "inspect Qwen/Qwen2.5-Coder-0.5B --tensors"],
     [_option("folder", _SOURCE, nargs="?"), _switch("--tensors", "one line per tensor")], []),
    ("forward", _forward, "show the shapes on a prompt's way through the model",
     ['forward "def fib(n):"', 'forward "import numpy as" --top 10'],
     [*_MODEL, _option("--top", "how many next tokens (default: 5)", type=_count, default=5)], []),
    ("generate", _generate, "continue a text, token by token",
     ['generate "def fib(n):" --max-new-tokens 80',
      'generate --chat "What is a closure?" --temperature 0.7 --seed 1',
      f"generate --fim 'def add({FILL}):\\n    return a + b'",
      'generate "import numpy as" --beams 4 --max-new-tokens 16', "generate - < prompt.py"],
     [*_MODEL,
      _option("--max-new-tokens", "(default: 128)", type=_count, default=128, metavar="N"),
      *(_option(f"--{name.replace('_', '-')}", text, type=kind, default=default, metavar=letter)
        for name, (kind, default, letter, text) in _SAMPLING.items()),
      _option("--stop", "end before this text; may be given several times", action="append",
              default=[], metavar="TEXT"),
      _option("--beams", "search with N beams for the most likely text; not with the options of "
              "sampling, nor --stop", type=_count, metavar="N"),
      _option("--cache-dtype", "of keys and values: the model's (auto, the default), or int8, "
              "for less memory and slower steps", choices=("auto", "int8"), default="auto")],
     [_switch("--chat", "the prompt is a message to an assistant"),
      _switch("--fim", f"fill in the {FILL} in the prompt")]),
    ("train", _train, "train a model from a recipe and a folder of text",
     ["train data/tiny-coder/recipe.toml --out runs/mine",
      "train my.toml --text ./my-code --out runs/mine",
      "train my.toml --text ./my-code --out runs/mine --resume",
      "train more.toml --text ./my-code --start runs/mine/model --out runs/more"],
     [_option("recipe", "a TOML file: model, data, training"),
      _option("--out", "where all results go", required=True, metavar="FOLDER"),
      _option("--text", "the text; stdlib: Python's own (default: the recipe's)",
              metavar="FOLDER"),
      _option("--start", "begin with this model and its tokenizer; the recipe then has no [model]",
              metavar="MODEL"),
      _switch("--resume", "continue from the newest checkpoint in FOLDER"), _DEVICE], []),
    ("average", _average, "write the mean of a model and of what more training made of it",
     ["average runs/mine/model runs/more/model --out runs/both",
      "average runs/mine/model runs/more/model --shares 0.3 0.7 --out runs/both"],
     [_option("models", "folders or Hub ids, at least two; the first one's tokenizer is kept",
              nargs="+", metavar="MODEL"),
      _option("--out", "where the model goes", required=True, metavar="FOLDER"),
      _option("--shares", "of each model, together 1 (default: equal)", nargs="+", type=float,
              metavar="X"),
      _option("--dtype", "of the model that is written (default: float32)", choices=sorted(DTYPES),
              default="float32")], []),
    ("pass-at-k", _pass_at_k, "let a model write programs, run them, and count which pass",
     ["pass-at-k --split phrasing", "pass-at-k --tasks tasks.jsonl --samples 20 --k 1 5 20",
      "pass-at-k --tasks tasks.jsonl --text ./training-text --out programs.jsonl"],
     [_option("--tasks", 'JSON lines of {"prompt", "tests", "family"}', metavar="FILE"),
      _option("--split", "instead of --tasks: generated ones, of what tiny-coder was trained on "
              "(train), of the same families in other words (phrasing), or of other families "
              "(family)", choices=SPLITS),
      _option("--families", "only these families of the split", nargs="+", metavar="NAME"),
      _option("--count", "how many to generate (default: 300)", type=_count, metavar="N"),
      *_MODEL[1:],
      _option("--samples", "programs per task (default: 10)", type=_count, default=10,
              metavar="N"),
      _option("--k", "of pass@k (default: 1 and 10, or fewer samples)", type=_count, nargs="+",
              metavar="K"),
      _option("--temperature", "of the samples (default: 0.8)", type=float, default=0.8,
              metavar="X"),
      _option("--max-new-tokens", "of each program (default: 256)", type=_count, default=256,
              metavar="N"),
      _option("--batch-size", "programs written at once (default: 32)", type=_count, default=32,
              metavar="N"),
      _option("--seed", "same seed, same programs (default: 0)", type=int, default=0, metavar="N"),
      _option("--seconds", "that each program may run (default: 2)", type=float, default=2.0,
              metavar="X"),
      _option("--text", "tell how much of the tasks occurs in this text, such as what the model "
              "was trained on", metavar="FOLDER"),
      _option("--out", "write each program, and how it ended, as JSON lines", metavar="FILE")],
     []),
    ("grpo", _grpo, "let a model learn to write programs of some families from their tests",
     ["grpo --families keys_with_max --out runs/keys",
      "grpo --families keys_with_max --model Qwen/Qwen2.5-Coder-0.5B --lora 16 "
      "--learning-rate 2e-4 --prompts 4 --batch-size 4 --count 20 --out runs/keys"],
     [_option("--families", "of `python -m qwenkit.programs`", nargs="+", required=True,
              metavar="NAME"),
      _option("--out", "where model and metrics go", required=True, metavar="FOLDER"),
      *_MODEL[1:3],
      _option("--lora", "train LoRA of this rank (default: all weights)", type=_count,
              metavar="RANK"),
      *(_option(f"--{name.replace('_', '-')}", f"{text} (default: {getattr(DEFAULTS, name):g})",
                type=type(getattr(DEFAULTS, name)), default=getattr(DEFAULTS, name), metavar=letter)
        for name, (letter, text) in SETTINGS.items()),
      _option("--count", "tasks to measure by (default: 60)", type=_count, default=60,
              metavar="N")],
     []),
    ("serve", _serve, "offer a model to editors and other programs, through OpenAI's API",
     ["serve", "serve Qwen/Qwen2.5-Coder-0.5B --dtype int8 --port 8001",
      f"serve --host 0.0.0.0  # with {TOKEN} in the environment"],
     [_option("model", _SOURCE, nargs="?"),
      _option("--host", "to listen on (default: 127.0.0.1, which only this machine reaches); any "
              "other needs a token", default="127.0.0.1"),
      _option("--port", "to listen on (default: 8000; 0: one that is free)", type=int,
              default=8000, metavar="N"),
      _option("--token", f"that clients must send (default: ${TOKEN}, which other users cannot "
              "read as they can an argument)", metavar="T"),
      *_MODEL[2:],
      *(_option(f"--{name.replace('_', '-')}", f"{text} (default: {getattr(Limits, name)})",
                type=_count, default=getattr(Limits, name), metavar="N")
        for name, text in LIMITS.items()),
      _switch("--until-eof", "end when standard input closes, for programs that start this")],
     []),
    ("lab", _lab, "open JupyterLab on the first notebook",
     ["lab", "lab --port 8900 --no-browser", "lab --folder my-course",
      "lab --complete Qwen/Qwen2.5-Coder-0.5B --dtype int8"],
     [_option("--port", "(default: 8888)", type=int, default=8888),
      _option("--folder", "copy the notebooks there; what you changed is kept (default: those of "
              f"the clone, or ./{COPIES} where qwenkit is installed)"),
      _switch("--no-browser", "only start the server"),
      _option("--complete", "let a model on this machine suggest code as you type; Tab accepts "
              f"it. MODEL: {_SOURCE}", nargs="?", const="", metavar="MODEL"),
      _option("--dtype", "of that model: auto, float32, bfloat16, float16, int8", default="auto"),
      _option("jupyter", "more options for JupyterLab, after --", nargs="*")], []),
]  # fmt: skip


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the whole usage."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="qwenkit",
        description="Look inside Qwen2.5-Coder, and run it.",
        epilog="`qwenkit COMMAND --help` shows each command's options and examples.",
    )
    parser.add_argument("--version", action="version", version=f"qwenkit {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, run, text, examples, options, exclusive in _COMMANDS:
        made = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog="\n".join(["examples:", *(f"  qwenkit {example}" for example in examples)]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        for option, settings in options:
            made.add_argument(option, **settings)
        group = made.add_mutually_exclusive_group() if exclusive else made
        for option, settings in exclusive:
            group.add_argument(option, **settings)
    return parser
