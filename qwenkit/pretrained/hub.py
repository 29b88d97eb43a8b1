"""From a source to a folder or file on disk: the embedded model, a folder, GGUF, a Hub id."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path

from qwenkit.checkpoint import ADAPTER, ADAPTER_WEIGHTS, INDEX, SINGLE, read_index
from qwenkit.errors import CheckpointError, SourceError
from qwenkit.files import expanded
from qwenkit.gguf import is_gguf
from qwenkit.tokenizer import PATTERNS

# The embedded model is next to the package in a clone, and within it where it is installed.
_PLACES = (
    Path(__file__).parents[2] / "data" / "tiny-coder",
    Path(__file__).parents[1] / "tiny-coder",
)
EMBEDDED = next((place for place in _PLACES if (place / "config.json").is_file()), _PLACES[0])
# Everything a text model needs, and nothing else of what a repository may hold; the index says
# which shards there are.
FILES = ("config.json", "generation_config.json", SINGLE, INDEX, *PATTERNS, ADAPTER)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def resolve(source: str | Path | None = None) -> Path:
    """Return the checkpoint folder, or GGUF file, for a source; a Hub id is downloaded.

    Args:
        source: None: $QWENKIT_MODEL, else the embedded model; a folder; a GGUF file; or a Hub id
            such as "Qwen/Qwen2.5-Coder-0.5B". What exists here wins over a Hub id of the same
            spelling.

    Raises:
        SourceError: nothing is there, or it cannot be downloaded.
    """
    source = os.environ.get("QWENKIT_MODEL") or None if source is None else source
    if source is None:
        if EMBEDDED.is_dir():
            return EMBEDDED
        raise SourceError(
            f"no model was named, and the embedded one is not at {EMBEDDED}; fetch the repository "
            "again, or name a folder or a Hub id, such as Qwen/Qwen2.5-Coder-0.5B"
        )
    folder = expanded(source, possible=False)
    if os.path.exists(folder):  # False too for a name that no file can have
        if folder.is_dir() or is_gguf(folder):
            return folder
        raise SourceError(f"{folder} is a file; name the folder that holds config.json, or GGUF")
    if isinstance(source, str) and _HUB_ID.fullmatch(source):
        return _download(source)
    raise SourceError(
        f"{str(source)!r} is neither a folder here nor a Hub id, nor a GGUF file "
        '(an id is "owner/name", such as "Qwen/Qwen2.5-Coder-0.5B")'
    )


def cached_models() -> list[str]:
    """Return the Hub ids of Qwen models in the local cache."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return []
    models = [repo.repo_id for repo in repos if repo.repo_type == "model"]
    return sorted(name for name in models if "qwen" in name.lower())


def _download(hub_id: str) -> Path:
    """Download the files a model needs, or find them in the cache if there is no network."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=list(FILES)))
        weights = _weights(folder)
        if weights != [SINGLE]:
            fetch = [glob.escape(name) for name in weights]
            snapshot_download(hub_id, revision=_commit(folder), allow_patterns=fetch)
    except CheckpointError:  # a damaged index
        raise
    except errors.GatedRepoError:
        wrong = f"{hub_id} is gated; accept its terms and log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        wrong = f"{hub_id} is not on the Hub, or is private; check its spelling"
    except errors.LocalEntryNotFoundError:
        wrong = (
            f"{hub_id} is not in the local cache, or incomplete there, and the Hub cannot be "
            "reached; connect once to download it, or name a folder that holds it"
        )
    except errors.HFValidationError as error:
        wrong = f"{hub_id!r} is not a Hub id: {error}"
    except Exception as error:  # whatever the HTTP library raises when a connection breaks
        wrong = f"{hub_id} could not be downloaded: {error}; try again"
    else:
        config = ADAPTER if ADAPTER_WEIGHTS in weights else "config.json"
        if all((folder / name).is_file() for name in (config, *weights)):
            return folder
        wrong = (
            f"{hub_id} is incomplete: {folder} lacks config.json or safetensors weights; if you "
            "are offline, connect and try again; if not, the repository has no safetensors "
            "(of GGUF files, download one and name it)"
        )
    raise SourceError(wrong)


def _weights(folder: Path) -> list[str]:
    """Return the weight files of a repository, once its small files are there."""
    if (folder / SINGLE).exists():
        return [SINGLE]
    if (folder / INDEX).is_file():
        return sorted(set(read_index(folder / INDEX).weight_map.values()))
    # An adapter alone is not a model; `Checkpoint` says so, and how to load it.
    return [ADAPTER_WEIGHTS] if (folder / ADAPTER).is_file() else [SINGLE]


def _commit(folder: Path) -> str | None:
    """Return the commit that a snapshot is of, so that all its files come from the same one."""
    return folder.name if re.fullmatch("[0-9a-f]{40}", folder.name) else None
