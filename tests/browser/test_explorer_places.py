"""ModelExplorer in a page of its own: what a reader does, in both themes, after a reload too."""

import pytest
from driving import drive, look
from pages import opened

from qwenkit.widgets import ModelExplorer

pytestmark = pytest.mark.browser


def test_a_reader_does_everything_in_both_themes_and_after_a_reload(browser, tmp_path):
    with opened(browser, ModelExplorer().to_html(tmp_path / "page.html")) as page:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            drive(page, page)
            look(page, page)
            page.reload()
            page.wait_for_selector('.qk:not([data-drawn="0"])')
