"""The page in docs/explorer/, which a clone holds: it opens from disk, and is today's."""

import base64
import importlib.util
import json
import re
import zlib
from pathlib import Path

import pytest
from pages import opened
from PIL import Image

pytestmark = pytest.mark.browser
DOCS = Path(__file__).parents[2] / "docs"
PICTURE = re.compile(r"<noscript>.*?</noscript>")  # Matplotlib's, with its bytes


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("explorer_maker", DOCS / "explorer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def weights(script):
    """Return the bytes of the weights that model.js holds."""
    return zlib.decompress(base64.b64decode(json.loads(script.partition(" = ")[2].rstrip(";\n"))))


def test_the_page_is_what_make_explorer_writes(maker):
    made = maker.parts()
    stored = {name: (DOCS / "explorer" / name).read_text("utf-8") for name in made}
    assert PICTURE.sub("", stored["index.html"]) == PICTURE.sub("", made["index.html"])
    assert weights(stored["model.js"]) == weights(made["model.js"])


def test_it_opens_from_disk_and_computes(browser):
    with opened(browser, DOCS / "explorer" / "index.html") as page:
        page.locator(".qkx-prompt").fill("The capital of France is")
        page.wait_for_function("() => document.querySelector('.qk').qk.state.prompt.endsWith('is')")
        assert page.get_by_role("heading", name="Next token after").count() == 1


def test_the_moving_picture_fits_into_a_readme(maker):
    assert maker.PICTURE.stat().st_size <= maker.MOST
    with Image.open(maker.PICTURE) as picture:
        assert picture.n_frames > 30
