"""Make the page and the moving picture of ModelExplorer that are part of the repository.

`make explorer` runs it. It writes docs/explorer/: index.html, which a browser opens from disk, and
model.js with the weights, which changes only when tiny-coder is trained again. Then it films that
page into notebooks/pictures/explorer.gif.
"""

import io
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

import qwenkit as qk

ROOT = Path(__file__).parents[1]
FOLDER = Path(__file__).parent / "explorer"
PICTURE = ROOT / "notebooks" / "pictures" / "explorer.gif"
WEIGHTS = re.compile(r'(?<="weights": \{"base64": ")[A-Za-z0-9+/=]+')
READ = re.compile(r"^(?=render\(\{ model: standalone\(values\))", re.M)
SIZE = {"width": 1280, "height": 1060}  # of the window; the picture is three quarters of it
COLORS = 56
TYPED = 'def is_prime(n):\n    """Return True if n is prime."""\n'
MOST = 2_000_000  # bytes
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def parts() -> dict[str, str]:
    """Return the page without the weights, and the script that holds them, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        whole = qk.widgets.ModelExplorer().to_html(Path(folder) / "page.html").read_text("utf-8")
    [weights] = WEIGHTS.findall(whole)
    page = WEIGHTS.sub("", whole)
    page = page.replace("<script type=", '<script src="model.js"></script>\n<script type=', 1)
    page, found = READ.subn("values.files.weights.base64 = globalThis.modelWeights;\n", page)
    assert found == 1, "the page does not draw its widget as this script expects"
    return {"index.html": page, "model.js": f'globalThis.modelWeights = "{weights}";\n'}


def write_page() -> None:
    """Write docs/explorer/."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in parts().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
        print(f"docs/explorer/{name}: {len(text) / 1e6:.1f} MB")


def frames(page: Any) -> Iterator[int]:
    """Use the page as a reader would; yield how many milliseconds each view is to stay."""
    prompt, button = page.locator(".qkx-prompt"), page.get_by_role
    yield 1500
    prompt.fill("")
    for start in range(0, len(TYPED), 2):
        prompt.press_sequentially(TYPED[start : start + 2])
        page.wait_for_timeout(150)
        yield 120
    yield 1500
    button("button", name="Generate").click()
    for _ in range(60):
        page.wait_for_timeout(60)
        yield 90
        if page.evaluate("() => !document.querySelector('.qk').qk.generating"):
            break
    yield 2000
    prompt.fill(qk.widgets.explorer.PROMPT)
    page.wait_for_timeout(300)
    button("button", name="Layer 1, head 3", exact=True).click()
    page.wait_for_timeout(300)
    yield 2500
    for head in range(8):
        button("button", name=f"Layer 5, head {head}", exact=True).press("x")
        page.wait_for_timeout(200)
        yield 350
    yield 2000
    button("button", name="All on again").click()
    for _ in range(11):
        button("button", name="Step", exact=True).click()
        page.wait_for_timeout(250)
        yield 900


def montage(shots: list[Image.Image]) -> Image.Image:
    """Return pictures of one size, one below the other."""
    width, height = shots[0].size
    whole = Image.new("RGB", (width, height * len(shots)))
    for number, shot in enumerate(shots):
        whole.paste(shot, (0, number * height))
    return whole


def film() -> None:
    """Write the moving picture."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"the picture needs a browser: install one of {', '.join(BROWSERS)}")
    shots, times = [], []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport=SIZE, color_scheme="light", reduced_motion="reduce")
        page.goto((FOLDER / "index.html").as_uri())
        page.wait_for_selector('.qk:not([data-drawn="0"])')
        for milliseconds in frames(page):
            shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            shots.append(shot.resize((960, 795), Image.Resampling.LANCZOS))
            times.append(milliseconds)
        chromium.close()
    # One palette for all: what does not change is equal, and costs nothing.
    palette = montage(shots[:: len(shots) // 8]).quantize(COLORS)
    shots = [shot.quantize(palette=palette, dither=Image.Dither.NONE) for shot in shots]
    shots[0].save(
        PICTURE, save_all=True, append_images=shots[1:], duration=times, loop=0, optimize=True
    )
    size = PICTURE.stat().st_size
    print(f"{PICTURE.name}: {len(shots)} frames, {sum(times) / 1000:.0f} s, {size / 1e6:.2f} MB")
    assert size <= MOST, f"a README's picture may have {MOST / 1e6:.0f} MB at most"


if __name__ == "__main__":
    write_page()
    film()
