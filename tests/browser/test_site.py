"""The course as a site, made by Sphinx as `make site` does, in Chromium from disk.

Widgets are live in two notebooks only, for each costs a run of its notebook; the others show the
pictures that are stored.
"""

import os
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest
from driving import drive, look
from lab_server import PATIENCE
from notebook_cells import FOLDER, NOTEBOOKS
from pages import overflowing
from playwright.sync_api import expect

ROOT = FOLDER.parent
LIVE = "06_gqa"
EXPLORER = "00_start_here"
SCREENS = [(390, "light"), (390, "dark"), (1024, "dark"), (1280, "light"), (1320, "dark")]
PAGES = ("index", "notebooks/README", "notebooks/glossary", "notebooks/02_tokens")

BACKGROUND = "(element) => getComputedStyle(element).backgroundColor"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Make the site; a warning, as for a link that leads nowhere, is an error."""
    folder, cache = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("cache")
    command = [sys.executable, "-m", "sphinx", "-c", "docs", "-d", str(cache), "-E", "-W", "-q"]
    command += ["-D", "live_widgets=0[06]_[gs]*", ".", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def browsing(browser, site, width=1280, scheme="light"):
    """Yield a page that must say no error, and ask for nothing but files."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(1000 * PATIENCE)
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else 0)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    yield page
    page.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_every_notebook_is_a_page_with_its_answers_folded(site):
    for path in NOTEBOOKS:
        text = (site / f"notebooks/{path.stem}.html").read_text("utf-8")
        stored = path.read_text("utf-8")
        folded = text.count('<details class="admonition hide')
        assert folded == stored.count('"outputs_hidden": true')
        assert text.count("<summary>Solution</summary>") == stored.count("<summary>Solution<")
        assert text.count('<fieldset class="prediction">') == stored.count('"qk.predict(')
        assert len(re.findall(r'<div class="[^"]*tag_exercise-', text)) == len(
            re.findall(r'"exercise-\d+"', stored)
        )
        assert not re.search(r'<img alt="(|[^"]*\.png)"', text)
        assert not re.search(r'(?:src|rel="stylesheet" href)="(?:https?:)?//', text)
    assert not list(ROOT.glob("jupyter_execute*"))


def test_a_reader_finds_the_way(site, browser):
    with browsing(browser, site) as page:
        page.goto((site / "index.html").as_uri())
        page.get_by_role("link", name="The course: a map").first.click()
        page.locator(".course-graph a", has_text="03 RMSNorm").click()
        assert page.locator("h1").inner_text().startswith("03 · RMSNorm")
        page.get_by_role("link", name="Next").click()
        assert page.locator("h1").inner_text().startswith("04 · RoPE")
        page.get_by_role("link", name="glossary", exact=True).first.click()
        assert page.locator("h1").inner_text().startswith("Glossary")
        page.get_by_role("textbox", name="Search").fill("RMSNorm")
        page.keyboard.press("Enter")
        first = page.locator("#search-results li a").first
        assert first.inner_text() == "03 · RMSNorm"
        first.click()
        assert page.locator("h1").inner_text().startswith("03 · RMSNorm")


def test_an_answer_opens_and_a_widget_works_and_follows_the_theme(site, browser):
    with browsing(browser, site) as page:
        page.goto((site / f"notebooks/{LIVE}.html").as_uri())
        answer = page.get_by_text("Prediction 06.1: the answer is")
        assert not answer.is_visible()
        page.get_by_text("Show the answer").first.click()
        assert answer.is_visible()
        frame = page.locator("figure.widget iframe")
        assert frame.get_attribute("title").startswith("GQAExplorer: ")
        frame.scroll_into_view_if_needed()
        inside = frame.content_frame
        inside.locator('.qk:not([data-drawn="0"])').wait_for()
        before = inside.locator(".qk-live").inner_text()
        inside.locator('input[type="range"]').first.press("ArrowRight")
        expect(inside.locator(".qk-live")).not_to_have_text(before)
        content = inside.locator("main").bounding_box()["height"]
        assert frame.bounding_box()["height"] >= content > 100
        light = inside.locator("body").evaluate(BACKGROUND)
        while page.locator("body").get_attribute("data-theme") != "dark":
            page.locator("button.theme-toggle:visible").first.click()
        expect(inside.locator("body")).not_to_have_css("background-color", light)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_reader_drives_the_whole_model_in_the_site(site, browser, scheme):
    with browsing(browser, site, scheme=scheme) as page:
        page.goto((site / f"notebooks/{EXPLORER}.html").as_uri())
        for _ in range(2):
            frame = page.locator("figure.widget iframe").first
            frame.scroll_into_view_if_needed()
            inside = frame.element_handle().content_frame()
            inside.wait_for_selector('.qk:not([data-drawn="0"])')
            drive(page, inside)
            look(page, inside)
            page.reload()


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_pages_fit_the_screen_and_the_theme(site, browser, width, scheme):
    with browsing(browser, site, width, scheme) as page:
        for name in (*PAGES, f"notebooks/{LIVE}"):
            page.goto((site / f"{name}.html").as_uri())
            assert overflowing(page) == 0, name
            red = int(re.search(r"\d+", page.locator("body").evaluate(BACKGROUND))[0])
            assert red > 200 if scheme == "light" else red < 60
