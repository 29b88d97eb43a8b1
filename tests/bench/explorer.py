"""Time ModelExplorer's exported page in Chromium.

    python tests/bench/explorer.py [--rounds 5]

The page's size; seconds from its address to the first bars; seconds until another prompt is
answered; milliseconds from a key press to new bars with 64 tokens; generated tokens per second, and
next to it those of the package on the same text, on one thread. Seconds are those of your machine
today.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

import qwenkit as qk
from timing import seconds
from widgets import chromium, in_chromium, opened

TEXT = 'def largest(values):\n    """Return the largest of some values."""\n'
WRITE = """(text) => new Promise((resolve) => {
  const root = document.querySelector(".qk"), box = root.querySelector(".qkx-prompt");
  const start = performance.now();
  const look = () => root.qk.state.prompt === text
    ? requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - start)))
    : setTimeout(look);
  box.value = text;
  box.dispatchEvent(new Event("input", { bubbles: true }));
  look();
})"""


def text_of(tokenizer: qk.Tokenizer, tokens: int) -> str:
    """Return a text to which letters can be appended, of about so many tokens."""
    text = TEXT
    while tokenizer(text).shape[1] < tokens:
        text += "    best = values[0]\n"
    return text + "    # "


def in_page(tab, tokenizer: qk.Tokenizer) -> None:
    """Print how long a page takes to answer."""
    print(f"another prompt answered       {tab.evaluate(WRITE, TEXT) / 1000:6.2f} s")
    text = text_of(tokenizer, 64)
    tab.evaluate(WRITE, text)
    keys = [tab.evaluate(WRITE, text + "the best one yet"[:end]) for end in range(1, 17)]
    count = tab.evaluate("() => document.querySelector('.qk').qk.ids.length")
    print(f"a key press, {count} tokens       {statistics.median(keys):6.0f} ms")
    tab.evaluate(WRITE, TEXT)
    tab.get_by_role("button", name="Generate").click()
    tab.wait_for_function("() => !document.querySelector('.qk').qk.generating")
    print(tab.locator(".qkx-coach p").inner_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    widget = qk.widgets.ModelExplorer()
    with tempfile.TemporaryDirectory() as folder:
        page = widget.to_html(Path(folder) / "page.html")
        print(f"{page.stat().st_size / 1e6:.1f} MB")
        first = in_chromium(page, rounds)
        if first is None:
            raise SystemExit("this needs a browser: install Chromium")
        print(f"first bars                    {first:6.2f} s")
        with chromium() as browser:
            in_page(opened(browser, page), widget.view.tokenizer)
    torch.set_num_threads(1)
    ids = widget.view.tokenizer(TEXT)
    steps = len(list(qk.generate(widget.view.model, ids, max_new_tokens=48)))
    took = seconds(lambda: list(qk.generate(widget.view.model, ids, max_new_tokens=48)))
    print(f"the package: {steps / took:.0f} tokens per second")


if __name__ == "__main__":
    main()
