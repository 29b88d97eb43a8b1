"""Time what opens on a whole model: AttentionExplorer next to the forward pass that it needs.

    QWENKIT_MODEL=folder python tests/bench/widgets.py [--tokens 256] [--rounds 5]

"after the forward" is what the widget adds to a forward pass whose trace keeps every pattern: its
packing, and the picture that a notebook stores. Then the exported page: its size, and how long
Chromium takes from its address to its first picture. Seconds are those of your machine today.
"""

import argparse
import shutil
import statistics
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

import qwenkit as qk
from qwenkit.widgets.attention import AttentionExplorer
from timing import seconds, take_turns


def text_of(tokenizer: qk.Tokenizer, tokens: int) -> str:
    """Return the start of a file of Python's own that has so many tokens."""
    code = Path(argparse.__file__).read_text(encoding="utf-8")
    prompt = tokenizer.decode(tokenizer.encode(code)[:tokens])
    if tokenizer(prompt).shape[1] != tokens:
        raise SystemExit(f"no text of exactly {tokens} tokens begins there; try another number")
    return prompt


def measure(model: qk.QwenForCausalLM, tokenizer: qk.Tokenizer, prompt: str, rounds: int) -> dict:
    """Return the median seconds of each part; all parts take turns."""
    ids = tokenizer(prompt).to(model.device)
    trace = qk.Trace(keep=("attn.pattern",))
    widget = AttentionExplorer(model, tokenizer, prompt)
    parts = {
        "plain forward": lambda: model(ids, logits_to_keep=1),
        "forward, every pattern kept": lambda: model(ids, trace=trace, logits_to_keep=1),
        "AttentionExplorer made": lambda: AttentionExplorer(model, tokenizer, prompt),
        "its picture": widget._png,
    }
    with torch.no_grad():
        took = take_turns({name: partial(seconds, work) for name, work in parts.items()}, rounds)
    return {name: statistics.median(took[name]) for name in parts}


@contextmanager
def chromium():
    """Give Chromium; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        yield None
        return
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


def opened(browser, page: Path):
    """Open a page; return its tab once it has drawn."""
    tab = browser.new_page()
    tab.goto(page.as_uri())
    tab.wait_for_selector('.qk:not([data-drawn="0"])')
    return tab


def in_chromium(page: Path, rounds: int) -> float | None:
    """Return the median seconds from a page's address to its first picture; None: no browser."""
    with chromium() as browser:
        if browser is None:
            return None
        opened(browser, page).close()  # the first page of a fresh browser is slow
        return statistics.median(
            seconds(lambda: opened(browser, page).close()) for _ in range(rounds)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model, tokenizer = qk.load_pretrained()
    prompt = text_of(tokenizer, arguments.tokens)
    shape = f"{model.config.num_hidden_layers} layers × {model.config.num_attention_heads} heads"
    print(f"{shape}, {arguments.tokens} tokens, {model.dtype} on {model.device}")
    took = measure(model, tokenizer, prompt, arguments.rounds)
    for name, value in took.items():
        print(f"{name:28} {value:8.3f} s")
    forward = took["forward, every pattern kept"]
    after = took["AttentionExplorer made"] - forward + took["its picture"]
    print(f"{'after the forward':28} {after:8.3f} s   (at most 3 s)")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        AttentionExplorer(model, tokenizer, prompt).to_html(page)
        size = page.stat().st_size / 1e6
        print(f"{'page':28} {size:8.2f} MB  (at most 8 MB)")
        opening = in_chromium(page, arguments.rounds)
    said = "no Chromium here" if opening is None else f"{opening:8.3f} s"
    print(f"{'page opens in Chromium':28} {said}")


if __name__ == "__main__":
    main()
