"""What axe-core says of every page, in both themes, wide and narrow: nothing serious or moderate.

axe-core is installed with the linters of JavaScript, by `make lint`.
"""

import json
from pathlib import Path

import pytest
from pages import opened

import qwenkit as qk

pytestmark = pytest.mark.browser
AXE = Path(__file__).parents[1] / "js" / "node_modules" / "axe-core" / "axe.min.js"
PROMPT = "def add(a, b):\n    return a + b\n\n\ndef mul(x, y):\n    return"
MADE = {  # name -> how it is made from a model and its tokenizer
    "ModelExplorer": lambda m, t: qk.widgets.ModelExplorer(m, t),
    "AttentionExplorer": lambda m, t: qk.widgets.AttentionExplorer(m, t, PROMPT),
    "LayerInspector": lambda m, t: qk.widgets.LayerInspector(m, t, PROMPT),
    "SamplingExplorer": lambda m, t: qk.widgets.SamplingExplorer(m, t, PROMPT),
    "GenerationStepper": lambda m, t: qk.widgets.GenerationStepper(m, t, PROMPT),
    "RopeExplorer": lambda m, t: qk.widgets.RopeExplorer(),
    "GQAExplorer": lambda m, t: qk.widgets.GQAExplorer(m.config),
    "CheckpointBrowser": lambda m, t: qk.widgets.CheckpointBrowser(qk.resolve()),
}
RUN = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  return found.violations.filter(({ impact }) => impact !== "minor").map(
    ({ id, impact, nodes }) =>
      [impact, id, nodes.map((node) => node.html.slice(0, 120)).slice(0, 3)]);
}"""


@pytest.fixture(scope="module")
def loaded():
    return qk.load_pretrained(device="cpu", dtype="float32")


@pytest.fixture(scope="module", params=MADE)
def path(request, loaded, tmp_path_factory):
    return MADE[request.param](*loaded).to_html(tmp_path_factory.mktemp("axe") / "page.html")


def test_every_widget_is_here():
    assert set(MADE) == set(qk.widgets.__all__)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_serious_or_moderate(browser, path, width):
    if not AXE.exists():
        pytest.skip("AXE-CORE IS NOT INSTALLED: `make lint` installs it")
    with opened(browser, path, width=width) as page:
        page.add_script_tag(path=AXE)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.wait_for_timeout(300)
            found = page.evaluate(RUN)
            assert found == [], f"{theme}:\n{json.dumps(found, indent=1)}"
