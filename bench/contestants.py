"""The servers that are measured: how each is started, and its headers."""

import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

from tests.ports import free_port

from .process import ROOT, THEIRS, running, tree
from .upstream import nginx

PEERS_FOLDER = ROOT / ".bench"

# LiteLLM does not start without a master key, or with one that is easy to guess.
_MASTER_KEY = f"sk-{secrets.token_hex(32)}"


@dataclass(frozen=True)
class Upstreams:
    """Ports of the upstreams; *authority* is the file of the CA for those with TLS.

    *tls_closing* closes each connection.
    """

    whole: int
    stream: int
    tls: int
    tls_closing: int
    authority: str


@dataclass(frozen=True)
class Server:
    """A running contestant: its process, none for a direct call to the upstream."""

    pid: int | None
    url: str

    @property
    def health_url(self) -> str:
        """Its health check, which calls no upstream."""
        return urljoin(self.url, "/healthz")

    @property
    def worker(self) -> int:
        """The process that answers: the last one that was started."""
        assert self.pid is not None
        return tree(self.pid)[-1]


Start = Callable[[Upstreams, int], AbstractContextManager[Server]]


@dataclass(frozen=True)
class Contestant:
    """A server to measure. *features* are what it supports (see `Case.needs`).

    *start* gets a number of workers; with one, it runs on one processor. If it
    *is_routed*, the upstream is in a request's headers, else in its configuration. It
    may take *patience* seconds to start.
    """

    name: str
    start: Start
    features: frozenset[str] = field(default_factory=frozenset)
    is_routed: bool = True
    patience: float = 60

    def headers(
        self, port: int, config: object = None, tls: bool = False
    ) -> dict[str, str]:
        """The headers of a request that is to reach the upstream at *port*."""
        if not self.is_routed:
            return {"Authorization": f"Bearer {_MASTER_KEY}"}
        scheme = "https" if tls else "http"
        headers = {
            "Authorization": "Bearer sk-1",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{scheme}://127.0.0.1:{port}/v1",
        }
        # A config holds both, and some gateways refuse them twice.
        if config is not None:
            del headers["x-portkey-custom-host"], headers["x-portkey-provider"]
            headers["x-portkey-config"] = json.dumps(config)
        return headers


# lastword


@contextmanager
def lastword(
    upstreams: Upstreams, workers: int = 1, checkout: Path = ROOT
) -> Iterator[Server]:
    """The gateway in *checkout*, as it is shipped: log, metrics and ledger are on."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            "GATEWAY_BIND": f"127.0.0.1:{port}",
            "GATEWAY_INSTANCE": folder,
            "GATEWAY_CA_BUNDLE": upstreams.authority,
            "WEB_CONCURRENCY": str(workers),
        }
        command = [sys.executable, "-m", "gunicorn"]
        with running(command, environ, _cpus(workers), checkout) as pid:
            yield Server(pid, f"http://127.0.0.1:{port}/v1/completions")


def earlier(checkout: Path) -> Contestant:
    """An earlier lastword: another checkout, run with the packages of this one."""
    start = partial(lastword, checkout=checkout.resolve())
    features = next(each.features for each in OWN if each.name == "lastword")
    return Contestant("earlier", start, features)


# nginx as the lower bound: a proxy in C that parses no body

_PROXY = """
daemon off; worker_processes {workers}; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
    access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
    client_max_body_size 64m; client_body_buffer_size 2m;
    keepalive_requests 1000000;
    upstream whole {{ server 127.0.0.1:{whole}; keepalive 256; }}
    upstream stream {{ server 127.0.0.1:{stream}; keepalive 256; }}
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1; proxy_set_header Connection "";
        proxy_buffering off;
        location /whole/ {{ proxy_pass http://whole/; }}
        location /stream/ {{ proxy_pass http://stream/; }}
        location = /healthz {{ return 200; }}
    }}
}}
"""


@contextmanager
def proxy(upstreams: Upstreams, workers: int = 1) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        port, config = free_port(), Path(folder, "nginx.conf")
        ports = {"port": port, "whole": upstreams.whole, "stream": upstreams.stream}
        values = {"folder": folder, "workers": workers, **ports}
        config.write_text(_PROXY.format(**values))
        command = [nginx(), "-c", str(config), "-p", folder]
        with running(command, cpus=_cpus(workers)) as pid:
            yield Server(pid, f"http://127.0.0.1:{port}/whole/v1/completions")


@contextmanager
def direct(upstreams: Upstreams, workers: int = 1) -> Iterator[Server]:
    """No gateway: the base of the latency that the others add."""
    yield Server(None, f"http://127.0.0.1:{upstreams.whole}/v1/completions")


# Peers


@contextmanager
def portkey(upstreams: Upstreams, workers: int = 1) -> Iterator[Server]:
    """Its gateway, as npm installs it: one process."""
    port = free_port()
    built = PEERS_FOLDER / "node_modules/@portkey-ai/gateway/build/start-server.js"
    command = [_program_path("node"), str(built), f"--port={port}", "--headless"]
    with running(command, {"NODE_ENV": "production"}, _cpus(workers)) as pid:
        yield Server(pid, f"http://127.0.0.1:{port}/v1/completions")


_LITELLM = """
model_list:
  - model_name: whole
    litellm_params: &whole
      model: text-completion-openai/gpt-3.5-turbo-instruct
      api_base: http://127.0.0.1:{whole}/v1
      api_key: sk-1
  - model_name: stream
    litellm_params:
      model: text-completion-openai/gpt-3.5-turbo-instruct
      api_base: http://127.0.0.1:{stream}/v1
      api_key: sk-1
litellm_settings: {{telemetry: false, set_verbose: false}}
"""


@contextmanager
def litellm(upstreams: Upstreams, workers: int = 1) -> Iterator[Server]:
    """Its proxy, which routes by the model's name."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "config.yaml")
        config.write_text(
            _LITELLM.format(whole=upstreams.whole, stream=upstreams.stream)
        )
        program = str(PEERS_FOLDER / "litellm/bin/litellm")
        arguments = [
            "--port",
            str(port),
            "--host",
            "127.0.0.1",
            "--num_workers",
            str(workers),
        ]
        environ = {
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MASTER_KEY": _MASTER_KEY,
        }
        command = [program, "--config", str(config), *arguments]
        with running(command, environ, _cpus(workers)) as pid:
            yield Server(pid, f"http://127.0.0.1:{port}/v1/completions")


def _program_path(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise SystemExit(f"{program} is needed for this peer, and is not there")
    return path


def _cpus(workers: int) -> tuple[int, ...]:
    """One processor for one worker, else all."""
    return (THEIRS,) if workers == 1 else ()


OWN = (
    Contestant("direct", direct),
    Contestant("nginx", proxy, frozenset({"process", "many"})),
    Contestant(
        "lastword",
        lastword,
        frozenset({"process", "many", "bridge", "fallback", "cache", "tls"}),
    ),
)
PEERS = (
    Contestant("portkey", portkey, frozenset({"process", "many", "fallback"})),
    Contestant(
        "litellm", litellm, frozenset({"process"}), is_routed=False, patience=180
    ),
)
