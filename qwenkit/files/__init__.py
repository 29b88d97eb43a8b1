"""Files that are complete or absent, JSON, and folders whose files belong together."""

from qwenkit.files._json import as_json, read_json_object, write_json
from qwenkit.files._paths import (
    clear_leftovers,
    expanded,
    format_bytes,
    replacing,
    temporary_name,
    to_disk,
)
from qwenkit.files._together import Save, saving, settle, undisturbed, version

__all__ = [
    "Save",
    "as_json",
    "clear_leftovers",
    "expanded",
    "format_bytes",
    "read_json_object",
    "replacing",
    "saving",
    "settle",
    "temporary_name",
    "to_disk",
    "undisturbed",
    "version",
    "write_json",
]
