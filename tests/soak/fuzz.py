"""Random inputs for the whole application, without sockets in front.

    python -m tests.soak.fuzz --inputs 200000 --seed 1

Every input is a mutated valid request: its body, config, headers and path are changed
in their structure and in their bytes. Answers of the upstream are mutated as well. An
input depends on the seed and its own number alone, so `--only NUMBER` repeats it.
"""

import argparse
import functools
import io
import json
import logging
import random
import re
import socket
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from app import create_app
from app.core.hosts import LOCALHOST
from app.gateway.retries import Clock
from app.providers import PROVIDERS
from app.settings import Settings
from tests import wire
from tests.upstream import Answer, ReceivedRequest, Upstream, completion, whole

Headers = dict[str, str]


@dataclass(frozen=True)
class Input:
    """A request as a WSGI server passes it on: texts are bytes, decoded as Latin-1."""

    method: str
    path: str
    headers: Headers
    body: bytes

    def environ(self, number: int) -> dict[str, Any]:
        """The WSGI environ. Each request has its own address: none is throttled."""
        path, _, query = self.path.partition("?")
        return {
            "REQUEST_METHOD": self.method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "gateway",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": str(number),
            "CONTENT_LENGTH": str(len(self.body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(self.body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        } | {_variable(name): value for name, value in self.headers.items()}


def _variable(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name == "CONTENT_TYPE" else f"HTTP_{name}"


# Requests

BODIES: list[Any] = [
    {"model": "m", "prompt": "Hi"},
    {"model": "m", "prompt": ["a", "b"], "n": 2, "best_of": 3, "echo": True},
    {"model": "m", "prompt": [1, 2, 3], "logprobs": 2, "seed": 7, "user": "u"},
    {"model": "m", "prompt": [[1], [2, 3]], "stop": ["\n", "x"], "max_tokens": 0},
    {
        "model": "m",
        "prompt": "",
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    {"model": "gpt-3.5-turbo-instruct", "prompt": None, "suffix": "end", "stop": "x"},
    {
        "model": "us.meta.llama3-1-8b-instruct-v1:0",
        "prompt": "é🎉\u2028\x00",
        "logit_bias": {"50256": -100},
        "temperature": 0.5,
        "top_p": 1,
        "presence_penalty": -2,
        "frequency_penalty": 2,
    },
    {"model": "google/gemini-2.5-flash", "prompt": "x", "top_k": 5, "foo": {"a": [1]}},
    {"model": "@key/model", "prompt": "x", "max_tokens": None, "n": 4},
]

PATHS = (
    *("/v1/completions",) * 50,
    *("/completions/", "/v1/engines/org/model/completions") * 3,
    "/engines/a%0d%0ab/completions",
    "/openai/deployments/d\r\nX: y/completions?api-version=1",
    "/v1/models",
    "/healthz",
    "/",
    "*",
    "http://gateway/v1/completions",
)

QUERY = {
    "$or": [
        {"metadata.user.plan": {"$in": ["a", "b"]}},
        {"params.prompt": {"$regex": "^(a|b)+$"}, "url.pathname": {"$ne": "/"}},
        {"$not": {"params.max_tokens": {"$gte": 5, "$exists": True}}},
    ]
}


NAMES = sorted(name for name, provider in PROVIDERS.items() if provider.modes)


def _configs(host: str) -> list[Any]:
    """Valid configs; each provider is in one of them."""
    one = {"provider": "openai", "custom_host": host, "api_key": "k", "name": "a"}
    other = {"provider": "anthropic", "custom_host": host, "api_key": "k", "name": "b"}
    return [
        one | {"retry": {"attempts": 2, "on_status_codes": [429, 503]}},
        one | {"cache": {"mode": "simple", "max_age": 60}, "request_timeout": 5000},
        one | {"override_params": {"n": 2, "x": {"y": [1]}}, "drop_params": ["user"]},
        one | {"model_aliases": {"m": {"model": "other", "provider": "cohere"}}},
        one | {"forward_headers": ["x-tenant", "cookie"], "openai_organization": "o"},
        one | {"via": "chat", "bridge": {"system": "s", "template": "Say {prompt}"}},
        one | {"model_info": {"lacks": ["n"], "max_tokens": "mt", "token_floor": 3}},
        {"strategy": {"mode": "fallback", "cb_config": {}}, "targets": [one, other]},
        {
            "strategy": {"mode": "loadbalance", "sticky": "metadata.user.plan"},
            "targets": [one | {"weight": 0.5}, other | {"weight": 2}],
            "deadline_ms": 60000,
            "default_params": {"model": "d", "temperature": 1},
        },
        {
            "strategy": {
                "mode": "conditional",
                "conditions": [{"query": QUERY, "then": "b"}],
                "default": "a",
            },
            "targets": [one, other],
        },
        *(_alone(name, host) for name in NAMES),
    ]


def _alone(provider: str, host: str) -> dict[str, Any]:
    settings = {s.name: "x" for s in PROVIDERS[provider].settings if not s.is_base_url}
    kept = {k: v for k, v in settings.items() if "entra" not in k}
    return {"provider": provider, "custom_host": host, "api_key": "k", **kept}


METADATA = json.dumps({"user": {"plan": "a"}, "_user": "u", "n": 1})
OTHER_HEADERS: Headers = {
    "x-portkey-trace-id": "trace",
    "x-portkey-metadata": METADATA,
    "x-portkey-forward-headers": "x-tenant, cookie, host",
    "x-portkey-request-timeout": "5000",
    "x-portkey-strict-open-ai-compliance": "false",
    "x-portkey-cache-force-refresh": "true",
    "x-portkey-cache-namespace": "mine",
    "x-portkey-virtual-key": "vk",
    "x-portkey-api-key": "pk",
    "x-portkey-package-version": "1",
    "x-portkey-azure-resource-name": "r",
    "x-portkey-aws-region": "us-east-1",
    "x-portkey-openai-organization": "org",
    "api-key": "k2",
    "x-tenant": "acme",
    "Cookie": "a=b",
    "Origin": "https://page.example",
    "Access-Control-Request-Method": "POST",
    "Content-Encoding": "gzip",
    "Transfer-Encoding": "chunked",
    "Host": "gateway",
    "Accept": "*/*",
    "Range": "bytes=0-1",
    "If-None-Match": "*",
    "X-Forwarded-For": "1.2.3.4",
}
OTHER_HEADERS |= {
    header: "x"
    for provider in PROVIDERS.values()
    for setting in provider.settings
    for header in setting.headers
}

_STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30),
    *(0.5, -0.0, 1e308, 5e-324, "", "x", " ", "0", "-1", "1e999", "\x00", "\r\nX: y"),
    *("é", "漢", "🎉", "\u2028", "null", "true", "@", "@k/m", "$or", "{prompt}", "a.b"),
    *([], {}, [[]], [{}], [None], ["x"] * 9, [0], [[1], ["a"]], {"": 0}, {"$eq": 1}),
    *(
        "(" * 50,
        "(a*)*b",
        "a{1000}",
        "x" * 5000,
        "../..",
        "%0d%0a",
        "http://[::1",
        "é:1",
    ),
)


class Chance(random.Random):
    """A random generator of inputs and mutations."""

    def odds(self, of: float) -> bool:
        return self.random() < of

    def input(self, host: str) -> Input:
        """The next input, for an upstream at *host*."""
        method = "POST" if self.odds(0.96) else self.choice(("GET", "PUT", "OPTIONS"))
        body = self.choice(BODIES)
        return Input(
            method,
            _latin(self.text(self.choice(PATHS), 0.08)),
            self.headers(host),
            self.written(body, 0.6),
        )

    def headers(self, host: str) -> Headers:
        """Mostly headers that lead to *host*, and a few others."""
        chosen = self.route_headers(host)
        if self.odds(0.5):
            chosen["Content-Type"] = "application/json"
        chosen |= {"Authorization": "Bearer sk-1"} if self.odds(0.9) else {}
        for name in self.sample(sorted(OTHER_HEADERS), self.choice((0, 0, 1, 2, 5))):
            chosen[name] = OTHER_HEADERS[name]
        named = {self.text(k, 0.01): self.text(v, 0.06) for k, v in chosen.items()}
        return {_token(name): _sendable(value) for name, value in named.items()}

    def route_headers(self, host: str) -> Headers:
        """A provider in a header, a config, or both."""
        headers = {"x-portkey-custom-host": host} if self.odds(0.5) else {}
        configured = self.odds(0.6)
        if configured:
            config = self.written(self.config(host), 0.5)
            headers["x-portkey-config"] = config.decode("latin-1")
        if not configured or self.odds(0.3):
            provider = self.choice(NAMES)
            headers |= {"x-portkey-custom-host": host, "x-portkey-provider": provider}
        return headers

    def config(self, host: str) -> Any:
        """A valid config, or one that leaves its provider to a header."""
        config = self.choice(_configs(host))
        kept = {k: v for k, v in config.items() if k != "provider"}
        return {"retry": {"attempts": 1}} | kept if self.odds(0.1) else config

    def written(self, document: Any, odds: float) -> bytes:
        """*document* as JSON, changed before or after encoding with these *odds*."""
        changes = self.choice((1, 1, 2, 4)) if self.odds(odds) else 0
        for _ in range(changes):
            document = self.changed(document)
        text = json.dumps(document, ensure_ascii=self.odds(0.5)).encode()
        return self.bytes_of(text) if self.odds(odds * 0.1) else text

    def changed(self, node: Any) -> Any:
        """*node* with one descendant changed."""
        if isinstance(node, dict) and node and self.odds(0.94):
            return self._changed_object(node)
        if isinstance(node, list) and node and self.odds(0.8):
            at = self.randrange(len(node))
            return node[:at] + [self.changed(node[at])] + node[at + 1 :]
        return self.strange(node)

    def _changed_object(self, node: dict[str, Any]) -> dict[str, Any]:
        key = self.choice([*node])
        match self.randrange(10):
            case 0:
                return {k: v for k, v in node.items() if k != key}
            case 1:
                return node | {self.text(key, 1): node[key]}
            case 2:
                return node | {key: self.choice([*node.values()])}
            case 3:
                return node | {str(self.choice(_STRANGE)): self.choice(_STRANGE)}
            case _:
                return node | {key: self.changed(node[key])}

    def strange(self, node: Any) -> Any:
        """Another value in place of *node*."""
        match self.randrange(7):
            case 0:
                return [node]
            case 1:
                return {"x": node}
            case 2:
                return self._nested(node, self.choice((5, 20, 120, 240, 251, 300)))
            case 3:
                return self.text(node, 1) if isinstance(node, str) else str(node)
            case _:
                return self.choice(_STRANGE)

    def _nested(self, node: Any, levels: int) -> Any:
        wrap: Callable[[Any], Any] = self.choice(
            (lambda n: [n], lambda n: {"targets": [n]}, lambda n: {"$not": n})
        )
        for _ in range(levels // (2 if "targets" in wrap(0) else 1)):
            node = wrap(node)
        return node

    def text(self, original: str, odds: float) -> str:
        """*original*, changed with these *odds*."""
        if not self.odds(odds):
            return original
        at = self.randint(0, len(original))
        piece = str(self.choice((*_STRANGE, original, chr(self.randrange(0x3000)))))
        return original[:at] + piece + original[at + self.randrange(3) :]

    def bytes_of(self, original: bytes) -> bytes:
        """*original* with a few bytes removed, inserted, doubled or truncated."""
        at = self.randint(0, len(original))
        piece = self.choice(
            (b"", self.randbytes(3), b"\xff\xfe", b"[" * 300, b'"\\ud800"', b"NaN")
        )
        end = self.choice((at, at + 1, len(original)))
        changed = original[:at] + piece + original[end:]
        return self.choice(
            (changed, changed, changed.decode("latin-1").encode("utf-16"))
        )


_REFUSED = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def _latin(text: str) -> str:
    return text.encode().decode("latin-1")


def _sendable(value: str) -> str:
    """*value* as a server passes it on: UTF-8 bytes, unless it is Latin-1 already."""
    text = value if max(value, default="") < "\u0100" else _latin(value)
    return _REFUSED.sub("", text).strip()


def _token(name: str) -> str:
    return re.sub(r"[^!#$%&'*+.^`|~0-9a-zA-Z-]", "", name) or "x"


# Answers of the upstream

_WIRE = Path(wire.__file__).parent
_KINDS = {
    ".json": "application/json",
    ".sse": "text/event-stream",
    ".ndjson": "application/x-ndjson",
    ".frames": "application/vnd.amazon.eventstream",
}
_RECORDED = sorted(path for path in _WIRE.glob("*/*") if path.suffix in _KINDS)

# The recordings for each path; the first part that occurs in the path counts.
_FITTING = {
    "/converse": "bedrock",
    "/invoke": "bedrock-*",
    "/messages": "anthropic",
    ":rawPredict": "anthropic",
    "/api/": "ollama*",
    "/infill": "llama-cpp-fim",
    "/fim/": "*-fim",
    "generateContent": "google",
    "/v2/chat": "cohere",
    "/generate": "triton",
    "/run/": "workers-ai*",
    "/chat/": "*-chat",
    "": "*[!cek]",
}


def answer(request: ReceivedRequest) -> Answer:
    """The answer to *request*: of its provider, of another one, or malformed.

    Equal requests get equal answers.
    """
    chance = Chance(request.body)
    if chance.odds(0.1):
        return chance.choice(_refusals())
    fitting = _fitting(request) if chance.odds(0.9) else _RECORDED
    path = chance.choice(fitting)
    body = path.read_bytes()
    if chance.odds(0.5):
        body = _garbled(body, path.suffix, chance)
    hostile = ["x-request-id: \x01é"] if chance.odds(0.1) else []
    return whole(body, 200, *hostile, content_type=_KINDS[path.suffix])


@functools.cache
def _recorded(folders: str, streamed: bool) -> list[Path]:
    recordings = (path for path in _RECORDED if path.match(f"{folders}/*"))
    return [path for path in recordings if (path.suffix != ".json") == streamed]


def _fitting(request: ReceivedRequest) -> list[Path]:
    streamed = b'"stream":true' in request.body or "tream" in request.path
    folders = next(_FITTING[part] for part in _FITTING if part in request.path)
    return _recorded(folders, streamed) or _RECORDED


def _garbled(body: bytes, suffix: str, chance: Chance) -> bytes:
    """*body* with a change in its JSON, or in its bytes."""
    if suffix == ".frames" or chance.odds(0.2):
        return chance.bytes_of(body)
    lines = [body] if suffix == ".json" else body.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    start, brace, text = lines[at].partition(b"{")
    if brace:
        changed = chance.changed(json.loads(brace + text))
        lines[at] = start + json.dumps(changed).encode() + b"\n"
    return b"".join(lines)


@functools.cache
def _refusals() -> list[Answer]:
    error = {"error": {"message": "no\r\n\x00é漢", "type": None, "code": [1]}}
    hostile = "x-request-id: \x01é", "retry-after: soon", "x-ratelimit-a: " + "y" * 9000
    return [
        *(whole(error, status, *hostile) for status in (400, 401, 404, 429, 418)),
        whole({"detail": [{"loc": None}]}, 422),
        whole(b"[" * 2000),
        whole(b"\xff\x00", 200, "Content-Encoding: gzip"),
        whole([], 302, "Location: http://10.0.0.1/"),
        whole(b"", 204),
        whole(completion(), 200, *hostile),
    ]


def upstream() -> Upstream:
    """An upstream with such answers, which keeps no requests."""

    def forgetting(request: ReceivedRequest) -> Answer:
        server.requests.clear()
        return answer(request)

    server = Upstream([forgetting])
    return server


_resolve = socket.getaddrinfo


@contextmanager
def fence(port: int) -> Iterator[None]:
    """Allow connections to this machine at *port* only, and resolve no other name."""
    before = socket.getaddrinfo

    def resolve(host: Any, requested_port: Any, *args: Any, **kwargs: Any) -> Any:
        if host in ("127.0.0.1", "localhost") and requested_port == port:
            return _resolve("127.0.0.1", requested_port, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "outside of the fence")

    socket.getaddrinfo = resolve  # type: ignore[assignment]
    try:
        yield
    finally:
        socket.getaddrinfo = before


# Checks of the answer

# What gunicorn accepts; for anything else it sends a 500.
_HEADER = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")
_SHAPE = {"message", "type", "param", "code"}


class Wrong(Exception):
    """An answer that is not allowed."""


class _Memory(logging.Handler):
    """Keeps the position of the last logged exception, instead of logging it."""

    last_error = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.last_error = f"{Path(where.filename).name}:{where.lineno} {error!r}"


class Subject:
    """The application under test, and its upstream."""

    def __init__(self) -> None:
        self.upstream = upstream()
        self._folder = tempfile.TemporaryDirectory()
        clock = Clock(sleep=lambda seconds: None, chance=lambda: 0.5)
        settings = Settings(
            instance=self._folder.name,
            cors_origins=("https://page.example",),
            idle_timeout=5,
            first_byte_timeout=5,
            trusted_custom_hosts=LOCALHOST,
        )
        self._app = create_app(settings, clock)
        self._memory = _Memory()
        self._logger = logging.getLogger("lastword")
        self._logger.addHandler(self._memory)
        self._logger.propagate = False

    def close(self) -> None:
        self._logger.removeHandler(self._memory)
        self._logger.propagate = True
        for name in ("lastword", "lastword.directory", "lastword.ledger"):
            self._app.extensions[name].close()
        self.upstream.stop()
        self._folder.cleanup()

    def status(self, case: Input, number: int) -> int:
        """The status of the answer to *case*. Raises Wrong, or what the app raises."""
        started: list[Any] = []
        environ = case.environ(number)
        answer = self._app.wsgi_app(environ, lambda *head: started.append(head))
        try:
            body = b"".join(answer)
        finally:
            getattr(answer, "close", lambda: None)()
        status, headers = int(started[0][0][:3]), started[0][1]
        if status == 500:
            raise Wrong(f"a 500: {self._memory.last_error or body[:300]!r}")
        _judge(status, headers, body, case.method)
        return status


def _judge(status: int, headers: Any, body: bytes, method: str) -> None:
    for name, value in headers:
        if not _HEADER.fullmatch(value):
            raise Wrong(f"a header that cannot be sent: {name}: {value[:80]!r}")
    if status >= 400 and method != "HEAD" and status != 503:
        error = json.loads(body).get("error")
        if not isinstance(error, dict) or not _SHAPE <= set(error):
            raise Wrong(f"a {status} of another shape: {body[:300]!r}")


# The run


def build_input(seed: int, number: int, host: str) -> Input:
    """Input *number* of *seed*. It does not depend on the port of *host*."""
    template = Chance(f"{seed}:{number}").input("http://HOST/v1")
    body = template.body.replace(b"HOST", host.encode())
    headers = {k: v.replace("HOST", host) for k, v in template.headers.items()}
    return replace(template, body=body, headers=headers)


@dataclass
class FuzzResult:
    """How often each status was answered, and the inputs that failed."""

    statuses: Counter[int]
    failures: list[tuple[int, str, Input]]


def run(seed: int, numbers: Iterable[int], most: int = 10) -> FuzzResult:
    """Send these inputs; stop after *most* failures."""
    result = FuzzResult(Counter(), [])
    subject = Subject()
    host = f"127.0.0.1:{subject.upstream.port}"
    with fence(subject.upstream.port):
        for number in numbers:
            case = build_input(seed, number, host)
            why = _failure(subject, case, number, result.statuses)
            if why:
                least = smallest(case, lambda i: bool(_failure(subject, i, -1)))
                result.failures.append((number, why, least))
            if len(result.failures) == most:
                break
        subject.close()
    return result


def _failure(
    subject: Subject, case: Input, number: int, statuses: Counter[int] | None = None
) -> str:
    try:
        status = subject.status(case, number)
    except Exception as e:
        return f"{type(e).__name__}: {e}"
    if statuses is not None:
        statuses[status] += 1
    return ""


def smallest(case: Input, fails: Callable[[Input], bool]) -> Input:
    """*case* without the headers and the body fields that the failure does not need."""
    for name in case.headers:
        less = {k: v for k, v in case.headers.items() if k != name}
        if fails(candidate := replace(case, headers=less)):
            case = candidate
    for body in (b'{"model":"m","prompt":"x"}', b""):
        if fails(candidate := replace(case, body=body)):
            case = candidate
    return case


def main(argv: list[str]) -> int:
    options = argparse.ArgumentParser(prog="python -m tests.soak.fuzz")
    options.add_argument("--inputs", type=int, default=200_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--only", type=int)
    args = options.parse_args(argv)
    numbers = range(args.inputs) if args.only is None else [args.only]
    return _report(args.seed, _in_parallel(args.seed, numbers, args.processes))


def _in_parallel(seed: int, numbers: Any, processes: int) -> list[FuzzResult]:
    parts = [numbers[i::processes] for i in range(processes)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return list(pool.map(run, [seed] * processes, parts))


def _report(seed: int, parts: list[FuzzResult]) -> int:
    statuses = sum((part.statuses for part in parts), Counter[int]())
    failures = [failure for part in parts for failure in part.failures]
    counts = " ".join(f"{status}:{n}" for status, n in sorted(statuses.items()))
    total = statuses.total() + len(failures)
    print(f"fuzz: seed {seed}, {total} inputs, {len(failures)} failures; {counts}")
    for number, why, case in failures:
        print(f"--only {number}: {why}\n    {case!r}")
    return 1 if failures else 0


if __name__ == "__main__":
    began = time.monotonic()
    code = main(sys.argv[1:])
    print(f"in {time.monotonic() - began:.0f} s")
    sys.exit(code)
