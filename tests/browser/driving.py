"""What a reader does with ModelExplorer, the same wherever it is shown."""

from lab_server import PANEL, READY, SAVE, carry_out
from pages import FAINT
from test_explorer_page import IDLE, OFF
from test_widgets_in_lab import SHOWN

SUM = "def add(a, b):\n    return a +"
TYPED = "(text) => document.querySelector('.qk').qk.state.prompt === text"
FITS = "(one) => one.scrollWidth - one.clientWidth"
# CSS pixels of a laptop's window, of the same at a zoom of 200 %, and of a phone's.
SIZES = {"laptop": (1280, 900), "zoom 200 %": (640, 450), "phone": (390, 844)}


def drive(page, place):
    """Type, step, play, ablate, generate and choose a token, by keys where keys can do it.

    `place` is the page itself or a frame in it; it holds one ModelExplorer at its start.
    """
    prompt = place.get_by_label("Prompt", exact=True)
    prompt.focus()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type(SUM)
    place.wait_for_function(TYPED, arg=SUM)
    place.get_by_role("button", name="·b ").first.wait_for()

    place.get_by_role("button", name="Step", exact=True).press("Enter")
    place.get_by_text("1 of ").first.wait_for()
    place.get_by_role("button", name="Play").press("Enter")
    place.get_by_text("3 of ").first.wait_for()
    place.get_by_role("button", name="Pause").press("Enter")

    before = _likely(place)
    place.get_by_role("button", name="Layer 4, head 1", exact=True).press("x")
    place.wait_for_function(OFF, arg=1)
    place.get_by_role("button", name="Layer 3, head 2", exact=True).press("x")
    place.wait_for_function(OFF, arg=2)
    assert abs(_likely(place) - before) > 1e-4
    place.get_by_role("button", name="All on again (2 off)").press("Enter")
    place.wait_for_function(OFF, arg=0)
    assert abs(_likely(place) - before) < 1e-6

    place.get_by_role("button", name="Generate").press("Enter")
    place.wait_for_function(IDLE)
    assert prompt.input_value().startswith(f"{SUM} b")
    line = place.get_by_role("listbox", name="Tokens of the prompt")
    line.press("Home")
    line.press("ArrowRight")
    assert place.evaluate("document.querySelector('.qk').qk.position") == 1


def look(page, place):
    """Check that the widget fits windows of several sizes, and that its text is legible there."""
    for name, (width, height) in SIZES.items():
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(300)  # a frame that is scrolled out of sight has no next picture
        assert place.locator(".qk").evaluate(FITS) <= 0, name
        assert place.evaluate(FAINT) == [], name
    page.set_viewport_size({"width": 1280, "height": 900})


def in_theme(page, name):
    """Choose JupyterLab's theme, which Notebook 7 has too."""
    command = (
        f"() => window.jupyterapp.commands.execute('apputils:change-theme', {{theme: '{name}'}})"
    )
    carry_out(page, command)
    light = str(name == "JupyterLab Light").lower()
    page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")


def drive_in_jupyter(page, errors, own=()):
    """Do it all in a notebook that shows a ModelExplorer, in both themes and after a reload.

    `errors` may hold nothing in the end but `own`, those that Jupyter itself logs as it starts.
    """
    drive(page, page)
    look(page, page)
    in_theme(page, "JupyterLab Dark")
    look(page, page)
    in_theme(page, "JupyterLab Light")
    carry_out(page, SAVE)
    page.wait_for_function(f"() => {PANEL}.context.model.dirty === false")
    page.reload()
    page.wait_for_function(READY)
    page.wait_for_selector(SHOWN)
    drive(page, page)
    assert [error for error in errors if error not in own] == []
    errors.clear()


def _likely(place):
    """Return the highest probability."""
    return place.evaluate("Math.max(...document.querySelector('.qk').qk.probabilities)")
