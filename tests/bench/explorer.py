"""Time ModelExplorer's exported page in Chromium.

    python tests/bench/explorer.py [--rounds 5]

The page's size; seconds from its address to the first bars; seconds until another prompt is
answered; milliseconds from a key press to new bars with 64 tokens; generated tokens per second, and
next to it those of the package on the same text, on one thread. Seconds are those of your machine
today.
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import torch

import qwenkit as qk
from timing import seconds

DRAWN = '.qk:not([data-drawn="0"])'
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    from playwright.sync_api import sync_playwright

    widget = qk.widgets.ModelExplorer()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page = widget.to_html(Path(folder) / "page.html")
        print(f"{page.stat().st_size / 1e6:.1f} MB")
        browser = driver.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, ("chromium", "google-chrome")))),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )

        def opened():
            tab = browser.new_page()
            tab.goto(page.as_uri())
            tab.wait_for_selector(DRAWN)
            return tab

        opened().close()  # the first page of a fresh browser is slow
        first = []
        for _ in range(rounds):
            first.append(seconds(lambda: opened().close()))
        print(f"first bars                    {statistics.median(first):6.2f} s")
        tab = opened()
        print(f"another prompt answered       {tab.evaluate(WRITE, TEXT) / 1000:6.2f} s")
        text = text_of(widget.view.tokenizer, 64)
        tab.evaluate(WRITE, text)
        keys = [tab.evaluate(WRITE, text + "the best one yet"[:end]) for end in range(1, 17)]
        count = tab.evaluate("() => document.querySelector('.qk').qk.ids.length")
        print(f"a key press, {count} tokens       {statistics.median(keys):6.0f} ms")
        tab.evaluate(WRITE, TEXT)
        tab.get_by_role("button", name="Generate").click()
        tab.wait_for_function("() => !document.querySelector('.qk').qk.generating")
        print(tab.locator(".qkx-coach p").inner_text())
        browser.close()
    torch.set_num_threads(1)
    ids = widget.view.tokenizer(TEXT)
    steps = len(list(qk.generate(widget.view.model, ids, max_new_tokens=48)))
    took = seconds(lambda: list(qk.generate(widget.view.model, ids, max_new_tokens=48)))
    print(f"the package: {steps / took:.0f} tokens per second")


if __name__ == "__main__":
    main()
