"""From what a reader asks for to a folder on disk: the embedded model, a folder, or a Hub id."""

from __future__ import annotations

import os
import re
from pathlib import Path

from qwenkit.errors import SourceError

# The embedded model: in a clone it stands beside the package, in an installed one within it.
_PLACES = (
    Path(__file__).parents[2] / "data" / "tiny-coder",
    Path(__file__).parents[1] / "tiny-coder",
)
EMBEDDED = next((place for place in _PLACES if (place / "config.json").is_file()), _PLACES[0])
# Everything a text model needs, and nothing else of what a repository may hold.
FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve(source: str | Path | None = None) -> Path:
    """Return the checkpoint folder for a source, downloading it if it is a Hub id.

    Args:
        source: None: $QWENKIT_MODEL, else the embedded model; a folder; or a Hub id such as
            "Qwen/Qwen2.5-Coder-0.5B". An existing folder wins over a Hub id of the same spelling.

    Raises:
        SourceError: nothing there, or not to be had without a network.
    """
    if source is None:
        source = os.environ.get("QWENKIT_MODEL") or None
    if source is None:
        if EMBEDDED.is_dir():
            return EMBEDDED
        raise SourceError(
            f"no model was named, and the embedded one is not at {EMBEDDED}; fetch the repository "
            "again, or name a folder or a Hub id, such as Qwen/Qwen2.5-Coder-0.5B"
        )
    folder = Path(source).expanduser()
    if _exists(folder):
        if folder.is_dir():
            return folder
        raise SourceError(f"{folder} is a file; name the folder that holds config.json")
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return _download(source)
    raise SourceError(
        f"{str(source)!r} is neither a folder here nor a Hub id "
        '(an id is "owner/name", such as "Qwen/Qwen2.5-Coder-0.5B")'
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than a path may be, or with a NUL in it
        return False


def cached_models() -> list[str]:
    """Return the Hub ids of Qwen models in the local cache."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    return sorted(
        r.repo_id for r in repos if r.repo_type == "model" and "qwen" in r.repo_id.lower()
    )


def _download(hub_id: str) -> Path:
    """Fetch a repository's needed files, or find them in the cache where there is no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=list(FILES)))
    except GatedRepoError:
        raise SourceError(
            f"{hub_id} is gated; accept its terms and log in with `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise SourceError(
            f"{hub_id} is not on the Hub, or is private; check its spelling"
        ) from None
    except LocalEntryNotFoundError:
        raise SourceError(
            f"{hub_id} is not in the local cache, or incomplete there, and the Hub cannot be "
            "reached; connect once to download it, or name a folder that holds it"
        ) from None
    except HFValidationError as error:
        raise SourceError(f"{hub_id!r} is no Hub id: {error}") from None
    except Exception as error:  # what the HTTP library of the day raises when a line breaks
        raise SourceError(f"{hub_id} could not be downloaded: {error}; try again") from None
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise SourceError(
            f"{hub_id} is incomplete: {folder} lacks config.json or safetensors weights; if you "
            "are offline, connect and try again; if not, the repository has no safetensors"
        )
    return folder
