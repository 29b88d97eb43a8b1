"""The chat templates of a folder: several by name, in files of their own or in the settings."""

from __future__ import annotations

from collections.abc import Mapping

from qwenkit.errors import TokenizerError
from qwenkit.files import as_json
from qwenkit.tokenizer._files import SETTINGS, TEMPLATE, TEMPLATES, as_text, parsed

DEFAULT = "default"
_KEY = "chat_template"


def read_templates(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return a folder's chat templates by name; separate files win, as in transformers."""
    own = {DEFAULT: as_text(files, TEMPLATE)} if TEMPLATE in files else {}
    for name in files:
        if name.startswith(TEMPLATES):
            own[name.removeprefix(f"{TEMPLATES}/").removesuffix(".jinja")] = as_text(files, name)
    return own or _in_settings(parsed(files, SETTINGS).get(_KEY))


def _in_settings(value: object) -> dict[str, str]:
    if isinstance(value, str):
        return {DEFAULT: value}
    found = {}
    for entry in value if isinstance(value, list) else ():
        name, text = (
            (entry.get("name"), entry.get("template")) if isinstance(entry, dict) else (0, 0)
        )
        if isinstance(name, str) and isinstance(text, str):
            found[name] = text
    return found


def choose(templates: Mapping[str, str], asked: str | None, with_tools: bool) -> str:
    """Return the template to use: the one asked for, else tool_use with tools, else the default.

    Args:
        templates: by name.
        asked: a name, or a template itself; None: not specified.
        with_tools: whether tools are passed.

    Raises:
        TokenizerError: there is none, or none of that name.
    """
    names = ", ".join(sorted(templates)) or "none"
    if asked is not None and not isinstance(asked, str):
        raise TokenizerError(f"chat_template is {asked!r:.80}; it must be a name or a template")
    if asked is not None and (asked in templates or "{" in asked):
        return templates.get(asked, asked)
    if asked is not None:
        raise TokenizerError(f"there is no chat template named {asked!r:.80}; there are: {names}")
    for name in ("tool_use", DEFAULT) if with_tools else (DEFAULT,):
        if name in templates:
            return templates[name]
    if not templates:
        raise TokenizerError("this checkpoint has no chat template; an Instruct model has one")
    raise TokenizerError(
        f"no chat template is named {DEFAULT}; choose one with chat_template=: {names}"
    )


def write_templates(
    files: dict[str, bytes], before: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Change the files to hold other templates, in the places of the old ones."""
    if before == now:
        return
    for name in [name for name in files if name.startswith(TEMPLATES)]:
        del files[name]
    settings = parsed(files, SETTINGS)
    had = settings.get(_KEY) is not None
    listed = isinstance(settings.get(_KEY), list)
    in_files = files.pop(TEMPLATE, None) is not None or not (listed or set(now) <= {DEFAULT})
    if in_files or not now or (before and not had):
        settings.pop(_KEY, None)
        for name, text in now.items():
            if "/" in name or "\\" in name or name in ("", ".", ".."):
                raise TokenizerError(f"a chat template cannot be named {name!r}")
            path = TEMPLATE if name == DEFAULT else f"{TEMPLATES}/{name}.jinja"
            files[path] = text.encode("utf-8", "replace")
    elif listed:
        settings[_KEY] = [{"name": name, "template": text} for name, text in now.items()]
    else:
        settings[_KEY] = now[DEFAULT]
    if had or _KEY in settings:
        files[SETTINGS] = as_json(settings)
