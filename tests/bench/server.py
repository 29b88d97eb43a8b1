"""Many requests at once to `qwenkit serve`, some of which are wrong or cut off.

    QWENKIT_MODEL=folder python tests/bench/server.py [--requests 1000] [--clients 16] [--dtype D]

Every answer is compared with what `generate` gives for that prompt alone, every error with the
status that it must have. At the end the server holds no request, no page, no thread and no open
file more than before. Printed are how the requests ended, how many per second were answered, and
how long one took; then, how long a completion takes that is asked for alone, as an editor asks.
"""

import argparse
import gc
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection

import psutil
import torch

import qwenkit as qk
from qwenkit.serve.http import Limits, Server
from rows import spread
from timing import others_share

PROMPTS = (
    "def add(a, b):\n    return", "import", "class Stack:\n", "for i in", "x = [", "while True:",
    "def is_even(n):\n", "print(", "with open(", "try:\n",
)  # fmt: skip
MOST = 4  # new tokens
ALONE = 16  # new tokens of a completion that is asked for alone
WRONG: tuple[tuple[str, str, bytes, int], ...] = (  # path, content type, body, status
    ("/v1/completions", "application/json", b"{", 400),
    ("/v1/completions", "application/json", b'{"prompt": "x", "max_tokens": -1}', 400),
    ("/v1/completions", "application/json", b'{"prompt": "x", "unknown": 1}', 400),
    ("/v1/completions", "text/plain", b'{"prompt": "x"}', 415),
    ("/v1/chat/completions", "application/json", b'{"messages": 3}', 400),
    ("/v1/other", "application/json", b"{}", 404),
    ("/v1/completions", "application/json", b" " * 70_000, 413),
)
LIMITS = Limits(batch_size=16, max_requests=64, cache_tokens=4096, body_bytes=2**16)
Known = dict[tuple[str, int], str]


class Storm:
    """Sends requests of all kinds.

    Args:
        server: where to.
        known: the text for each prompt and count of tokens.
        close: whether a text that is another one is a close call.

    Attributes:
        ended: how many ended in which way.
        times: seconds of each request that was answered.
    """

    def __init__(
        self, server: Server, known: Known, close: Callable[[str, str, str], bool]
    ) -> None:
        self.host, _, port = server.url.removeprefix("http://").rpartition(":")
        self.port = int(port)
        self.known = known
        self.close = close
        self.ended: Counter[str] = Counter()
        self.times: list[float] = []
        self._lock = threading.Lock()

    def send(self, number: int) -> None:
        """Send one request; which, depends on its number alone."""
        chance = random.Random(number)
        kind = chance.random()
        start = time.perf_counter()
        if kind < 0.1:
            ended = self._cut_off(chance)
        elif kind < 0.2:
            ended = self._wrong(*chance.choice(WRONG))
        else:
            ended = self._right(chance.choice(PROMPTS), chance.randint(1, MOST), kind < 0.5)
        took = time.perf_counter() - start
        with self._lock:
            self.ended[ended] += 1
            self.times += [took] if ended == "answered" else []

    def _post(self, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
        connection = HTTPConnection(self.host, self.port, timeout=300)
        connection.request("POST", path, body, {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, text

    def complete(self, asked: dict[str, object]) -> bytes:
        """Return the answer to a request that is right."""
        status, text = self._post("/v1/completions", "application/json", json.dumps(asked).encode())
        assert status == 200, text
        return text

    def _right(self, prompt: str, count: int, stream: bool) -> str:
        asked = {"prompt": prompt, "max_tokens": count, "temperature": 0, "stream": stream}
        text = self.complete(asked)
        if stream:
            *events, done, _ = text.decode().split("\n\n")
            assert done == "data: [DONE]", text
            chunks = [json.loads(one.removeprefix("data: ")) for one in events]
        else:
            chunks = [json.loads(text)]
        found = "".join(one["choices"][0]["text"] for one in chunks)
        want = self.known[prompt, count]
        assert found == want or self.close(prompt, found, want), (prompt, found, want)
        return "answered"

    def _wrong(self, path: str, kind: str, body: bytes, expected: int) -> str:
        status, text = self._post(path, kind, body)
        assert status == expected, text
        assert json.loads(text)["error"]["message"]
        return "refused"

    def _cut_off(self, chance: random.Random) -> str:
        """Close the connection: at once, within the request, or within the answer."""
        stream = chance.random() < 0.5
        asked = {"prompt": chance.choice(PROMPTS), "max_tokens": 500, "temperature": 5.0}
        body = json.dumps({**asked, "stream": stream}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        head += b"Content-Type: application/json\r\n"
        sent = head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        with socket.create_connection((self.host, self.port), timeout=300) as line:
            line.sendall(sent[: chance.choice([20, len(sent) - 5, len(sent), len(sent)])])
            if stream and chance.random() < 0.5:
                line.settimeout(0.05)
                with suppress(TimeoutError):
                    line.recv(100)
        return "cut off"


def texts(model: qk.QwenForCausalLM, tokenizer: qk.Tokenizer) -> Known:
    """Return the text for each prompt and count."""
    stops = model.stop_ids
    known = {}
    for prompt in PROMPTS:
        steps = [one.token_id for one in qk.generate(model, tokenizer(prompt), MOST)]
        for count in range(1, MOST + 1):
            ids = [one for one in steps[:count] if one not in stops]
            known[prompt, count] = tokenizer.decode(ids, skip_special=True)
    return known


def close_call(model: qk.QwenForCausalLM, tokenizer: qk.Tokenizer) -> Callable[..., bool]:
    """Return a function that tells whether two tokens were equally likely but for rounding."""

    def close(prompt: str, found: str, want: str) -> bool:
        pair = tokenizer.encode(found), tokenizer.encode(want)
        first = next(i for i, two in enumerate(zip(*pair, strict=False)) if two[0] != two[1])
        ids = tokenizer.encode(prompt) + pair[1][:first]
        logits = model(torch.tensor([ids]))[0, -1]
        return abs(float(logits[pair[0][first]] - logits[pair[1][first]])) < 1e-4

    return close


def left(server: Server) -> tuple[int, ...]:
    """Return how many requests, jobs and pages a server holds, and pages that cannot be taken."""
    cache = server.engine.scheduler.cache
    jobs = len(server.engine._live), len(server.engine._jobs)
    return len(server._shared.active), *jobs, cache.used, cache.num_pages - cache.room


def wait_until(holds: Callable[[], bool], seconds: float = 120) -> bool:
    """Wait for something that happens in another thread; return whether it did."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def run(
    model: qk.QwenForCausalLM, tokenizer: qk.Tokenizer, requests: int, clients: int
) -> tuple[Storm, float]:
    """Send the requests; return how they ended, and the seconds they took together.

    Raises:
        AssertionError: an answer was wrong, or something was left.
    """
    process = psutil.Process()
    known = texts(model, tokenizer)
    with Server(model, tokenizer, "model", port=0, limits=LIMITS) as server:
        storm = Storm(server, known, close_call(model, tokenizer))
        with ThreadPoolExecutor(clients) as pool:  # what libraries start once, and keep
            list(pool.map(storm.send, range(2 * clients)))
        assert wait_until(lambda: not any(left(server))), left(server)
    gc.collect()
    before = process.num_fds(), process.num_threads()
    with Server(model, tokenizer, "model", port=0, limits=LIMITS) as server:
        storm = Storm(server, known, close_call(model, tokenizer))
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            for _ in pool.map(storm.send, range(requests)):
                pass
        took = time.perf_counter() - start
        assert wait_until(lambda: not any(left(server))), left(server)
        storm.send(1)  # it still answers
    gc.collect()
    assert wait_until(lambda: process.num_threads() <= before[1]), "a thread is left"
    assert process.num_fds() <= before[0], "a file is left open"
    return storm, took


def alone(model: qk.QwenForCausalLM, tokenizer: qk.Tokenizer) -> list[float]:
    """Return the seconds of each completion of `ALONE` tokens that is asked for alone."""
    took = []
    with Server(model, tokenizer, "model", port=0, limits=LIMITS) as server:
        storm = Storm(server, {}, lambda *texts: True)
        for prompt in PROMPTS:
            start = time.perf_counter()
            answer = json.loads(storm.complete({"prompt": prompt, "max_tokens": ALONE, "seed": 0}))
            if answer["usage"]["completion_tokens"] == ALONE:  # it did not end early
                took.append(time.perf_counter() - start)
    return took


def main() -> None:
    """Print how the requests ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--dtype", default="float32", help="of the model that is asked alone")
    options = parser.parse_args()
    model, tokenizer = qk.load_pretrained(dtype="float32")
    with others_share() as others:
        storm, took = run(model, tokenizer, options.requests, options.clients)
        single = spread(alone(*qk.load_pretrained(dtype=options.dtype)))
    print(", ".join(f"{count} {name}" for name, count in sorted(storm.ended.items())))
    each = spread(storm.times)
    print(
        f"{options.requests / took:.0f} requests/s with {options.clients} clients; an answer took "
        f"{each.median * 1e3:.0f} ms ({each.lowest * 1e3:.0f} to {each.highest * 1e3:.0f})"
    )
    print(
        f"alone, a completion of {ALONE} tokens took {single.median * 1e3:.0f} ms "
        f"({single.lowest * 1e3:.0f} to {single.highest * 1e3:.0f})"
    )
    print(f"{torch.get_num_threads()} threads; others took {others.share:.0%} of the cores")


if __name__ == "__main__":
    main()
