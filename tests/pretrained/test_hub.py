"""From a source to a folder; downloads are real ones, from a small Hub served on this machine."""

import hashlib
import http.server
import json
import os
import re
import threading
import types
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from forked import python_forked
from safetensors.torch import load, save

from qwenkit.checkpoint import Checkpoint
from qwenkit.errors import CheckpointError, QwenkitError, SourceError
from qwenkit.pretrained import hub

REPO = "someone/Qwen-toy"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
API, RESOLVED = f"/api/models/{REPO}", f"/{REPO}/resolve/{COMMIT}/"
UNNEEDED = {
    "README.md": b"# A model", ".gitattributes": b"*.safetensors filter=lfs",
    "pytorch_model.bin": b"\x80\x04.", "model.gguf": b"GGUF", "original/x.pth": b"\x80\x04.",
    "onnx/model.safetensors": b"another", "training_args.bin": b"\x80\x04.",
}  # fmt: skip


# --- without a network ---


def test_nothing_named_means_the_environments_model_else_the_embedded(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("QWENKIT_MODEL", str(toy))
    assert hub.resolve() == hub.resolve(None) == toy
    monkeypatch.setenv("QWENKIT_MODEL", str(tmp_path))
    assert hub.resolve(str(toy)) == toy  # what is named wins
    for clear in (lambda name: monkeypatch.setenv(name, ""), monkeypatch.delenv):
        clear("QWENKIT_MODEL")
        monkeypatch.setattr(hub, "EMBEDDED", toy)
        assert hub.resolve() == toy
        monkeypatch.setattr(hub, "EMBEDDED", tmp_path / "none")
        with pytest.raises(SourceError, match="no model was named"):
            hub.resolve()


def test_a_folder_is_itself_and_wins_over_a_hub_id_of_its_spelling(toy, tmp_path, monkeypatch):
    assert hub.resolve(toy) == hub.resolve(str(toy)) == toy
    monkeypatch.chdir(toy.parent)
    assert hub.resolve(toy.name) == Path(toy.name)
    monkeypatch.setenv("HOME", str(toy.parent))
    assert hub.resolve(f"~/{toy.name}") == toy
    (tmp_path / "someone" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub.resolve("someone/model") == Path("someone/model")
    with pytest.raises(SourceError, match=r"config\.json is a file; name the folder"):
        hub.resolve(toy / "config.json")


@pytest.mark.parametrize("source", [
    "nonsense", "a/b/c", "/no/such/folder", "../x/y",
    "./x", "a b/c", "https://hf.co/a/b", "someone/",
    "/x", "C:\\models\\x", "-a/b", "a/b\n",
    "é/b", "nul\0byte", "x" * 5_000, Path("someone/model"),
], ids=lambda source: repr(source)[:30])  # fmt: skip
def test_nonsense_is_refused_without_asking_a_hub(source, monkeypatch):
    monkeypatch.setattr(hub, "_download", lambda name: pytest.fail(f"asked for {name!r}"))
    with pytest.raises(FileNotFoundError, match="neither a folder here nor a Hub id") as caught:
        hub.resolve(source)
    assert type(caught.value) is SourceError
    assert isinstance(caught.value, QwenkitError)


# --- a Hub of our own ---


class Hub(http.server.ThreadingHTTPServer):
    """Answers as the Hub does for one repository, and keeps the list of what was asked."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.asked: list[tuple[str, str]] = []
        self.failing: str | None = None  # "500", or "cut": connections end in the middle
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def fetched(self) -> set[str]:
        """Return the files whose bytes were sent."""
        paths = [path for way, path in self.asked if way == "GET"]
        plain = {path.split(RESOLVED)[1] for path in paths if "/resolve/" in path}
        return plain | {path.removeprefix("/cdn/") for path in paths if path.startswith("/cdn/")}


class Answer(http.server.BaseHTTPRequestHandler):
    """Weights are redirected to another address, as the Hub does with its large files."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        files, path = self.server.files, unquote(urlsplit(self.path).path)
        self.server.asked.append((self.command, path))
        name = re.sub(f"^/{REPO}/resolve/({COMMIT}|main)/|^/cdn/", "", path)
        if self.server.failing == "500":
            self.send(500)
        elif path in (API, f"{API}/revision/main", f"{API}/revision/{COMMIT}"):
            names = [{"rfilename": name} for name in files]
            self.send_json({"id": REPO, "sha": COMMIT, "siblings": names})
        elif path == f"{API}/tree/{COMMIT}":
            sums = {name: hashlib.sha1(body).hexdigest() for name, body in files.items()}
            sizes = [{"path": n, "size": len(body), "oid": sums[n]} for n, body in files.items()]
            self.send_json([{"type": "file", **size} for size in sizes])
        elif name == path or name not in files:
            self.send(404, **{"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/cdn/"):
            self.send_bytes(files[name])
        else:
            self.send_file(name, files[name])

    do_HEAD = do_GET

    def log_message(self, *_):
        pass

    def send_file(self, name: str, body: bytes) -> None:
        etag = hashlib.sha256(body).hexdigest()
        facts = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}
        if not name.endswith(".safetensors"):
            return self.send_bytes(body, **facts)
        facts |= {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(body))}
        elsewhere = self.server.endpoint.replace("127.0.0.1", "localhost")
        self.send(302, Location=f"{elsewhere}/cdn/{name}", **facts)

    def send_bytes(self, body: bytes, **headers: str) -> None:
        wanted = self.headers.get("Range")
        if not wanted:
            return self.send(200, body, **headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        begin, end = int(first), int(last) + 1 if last else len(body)
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(body)}"
        self.send(206, body[begin:end], **headers)

    def send_json(self, data) -> None:
        self.send(200, json.dumps(data).encode(), **{"Content-Type": "application/json"})

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            cut = self.server.failing == "cut" and len(body) > 20_000
            self.wfile.write(body[:10_000] if cut else body)
            self.close_connection = self.close_connection or cut


RESOLVE = """
import sys
from qwenkit.errors import SourceError
from qwenkit.pretrained import cached_models, resolve
try:
    print("folder", resolve(sys.argv[1]))
    print("cached", *cached_models())
except SourceError as error:
    assert error.__suppress_context__ or error.__context__ is None
    print("refused", error)
"""


@pytest.fixture
def client(toy, tmp_path):
    """Return a Hub that serves the toy, and a function that resolves an id in a new process."""
    files = {path.name: path.read_bytes() for path in toy.iterdir()}
    served = Hub({**files, **UNNEEDED})

    def resolve(hub_id=REPO, **environment):
        done = python_forked(
            RESOLVE, hub_id, HF_ENDPOINT=served.endpoint, HF_HOME=str(tmp_path / "home"),
            HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_XET="1", HF_HUB_ETAG_TIMEOUT="2",
            HF_HUB_DOWNLOAD_TIMEOUT="2", HF_HUB_DISABLE_PROGRESS_BARS="1", NO_PROXY="*",
            no_proxy="*", **environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-1_000:]
        assert "Traceback" not in done.stderr
        return done.stdout.strip()

    yield types.SimpleNamespace(hub=served, resolve=resolve, home=tmp_path / "home", files=files)
    served.stop()


def folder_in(out: str) -> Path:
    assert out.startswith("folder "), out
    return Path(out.splitlines()[0].removeprefix("folder "))


def test_a_download_takes_what_is_needed_and_then_works_without_the_hub(client):
    out = client.resolve()
    folder = folder_in(out)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == client.files
    assert out.splitlines()[1] == f"cached {REPO}"
    assert client.hub.fetched() == client.files.keys()
    assert not any(name in path for _, path in client.hub.asked for name in UNNEEDED)
    client.hub.asked.clear()
    assert folder_in(client.resolve()) == folder  # again, with the Hub there
    assert client.hub.fetched() == set()
    client.hub.asked.clear()
    assert folder_in(client.resolve(HF_HUB_OFFLINE="1")) == folder
    assert client.hub.asked == []
    client.hub.failing = "500"
    assert folder_in(client.resolve()) == folder
    client.hub.stop()
    assert folder_in(client.resolve()) == folder


def test_a_cached_model_that_is_incomplete_says_so(client):
    folder = folder_in(client.resolve())
    (folder / "model.safetensors").unlink()
    assert re.match(f"refused .*{REPO}.*incomplete", client.resolve(HF_HUB_OFFLINE="1"))
    assert folder_in(client.resolve()) == folder  # with the Hub there it is made whole
    assert (folder / "model.safetensors").is_file()


def shards_of(files: dict[str, bytes], names: list[str]) -> dict[str, bytes]:
    """Return these files with their weights in shards of these names, and an index of them."""
    weights = load(files.pop("model.safetensors"))
    parts = [dict(list(weights.items())[number :: len(names)]) for number in range(len(names))]
    listed = {name: file for file, part in zip(names, parts, strict=True) for name in part}
    index = json.dumps({"metadata": {}, "weight_map": listed}).encode()
    files |= {file: save(part) for file, part in zip(names, parts, strict=True)}
    return files | {"model.safetensors.index.json": index}


def test_shards_of_any_name_come_from_the_index_and_no_others(client):
    names = ["consolidated-[1].safetensors", "parts/x.safetensors", "pytorch_model-00003-of-3."
             "safetensors"]  # fmt: skip
    files = shards_of(dict(client.files), names)
    client.hub.files = {**files, **UNNEEDED, "other-00001-of-00002.safetensors": b"another"}
    folder = folder_in(client.resolve())
    assert client.hub.fetched() == files.keys()
    weights = {name: tensor.tolist() for name, tensor in Checkpoint(folder).load().items()}
    want = load(client.files["model.safetensors"])
    assert weights == {name: want[name].tolist() for name in weights}
    (folder / "parts" / "x.safetensors").unlink()
    assert re.match(f"refused .*{REPO}.*incomplete", client.resolve(HF_HUB_OFFLINE="1"))


def test_an_adapter_alone_is_downloaded_to_be_told_as_what_it_is(client):
    adapter = {"adapter_config.json": b"{}", "adapter_model.safetensors": save({})}
    client.hub.files = {**adapter, **UNNEEDED}
    folder = folder_in(client.resolve())
    assert client.hub.fetched() == adapter.keys()
    with pytest.raises(CheckpointError, match="holds an adapter"):
        Checkpoint(folder)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/../../x.safetensors"])
def test_an_index_that_points_elsewhere_is_refused_before_a_shard_is_fetched(
    tmp_path, monkeypatch, name
):
    index = {"weight_map": {"model.norm.weight": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *_, **how: asked.append(how) or str(tmp_path)
    )
    with pytest.raises(CheckpointError, match="only a file in the checkpoint's own folder"):
        hub.resolve("someone/model")
    assert len(asked) == 1


@pytest.mark.parametrize("how", ["stopped", "offline", "500"])
def test_absent_and_no_hub_to_be_reached(client, how):
    if how == "stopped":
        client.hub.stop()
    client.hub.failing = how
    out = client.resolve(HF_HUB_OFFLINE=str(int(how == "offline")))
    assert out.startswith(f"refused {REPO} is not in the local cache, or incomplete there")
    assert "httpx" not in out
    assert len(out.splitlines()) == 1


def test_a_repository_that_does_not_exist_and_one_without_safetensors(client):
    out = client.resolve("someone/else")
    assert out == "refused someone/else is not on the Hub, or is private; check its spelling"
    for name in [name for name in client.hub.files if name.endswith(".safetensors")]:
        del client.hub.files[name]
    assert re.match("refused .*no safetensors", client.resolve())


def test_a_download_that_breaks_off_is_refused_and_can_be_resumed(client):
    client.hub.failing = "cut"
    out = client.resolve()
    assert out.startswith(f"refused {REPO} could not be downloaded"), out
    client.hub.failing = None
    folder = folder_in(client.resolve())
    assert (folder / "model.safetensors").read_bytes() == client.files["model.safetensors"]


@pytest.mark.parametrize("hub_id", ["a--b/c", "a..b/c", "a/b.git", "a/" + "b" * 200, "a/b-"])
def test_an_id_that_the_hub_library_does_not_take(monkeypatch, hub_id):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SourceError, match=hub_id):
        hub.resolve(hub_id)


def test_cached_models_of_an_empty_cache(tmp_path, monkeypatch):
    scan = partial(huggingface_hub.scan_cache_dir, tmp_path / "absent")
    monkeypatch.setattr(huggingface_hub, "scan_cache_dir", scan)
    assert hub.cached_models() == []
    assert not os.listdir(tmp_path)
