"""One bash that runs a page's commands, in a folder like a fresh clone."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .pages import ROOT, Step

# The gateway's address on the pages.
ADDRESS = "127.0.0.1:8787"
_MARK = "=== of the test, not of the page ==="
_PATIENCE = 60

# Differences from the commands of the page:
# - `git clone` does nothing, since the folder exists.
# - `make serve` shows what the gateway of the test has logged: it was started with the
#   same settings, from the environment in which the test runs. Other targets of make
#   are looked up, and not run.
# - Providers that require a key are a scripted upstream.
# - Prompts for a secret are answered; there is no terminal to type it on.
_PREAMBLE = """\
git() { [[ $1 == clone ]] || command git "$@"; }
make() {
    if [[ $1 == serve ]]; then cat "$GATEWAY_LOG"
    else command make --dry-run "$@" > /dev/null; fi
}
curl() {
    local elsewhere=()
    if [[ "$*" == *x-portkey-provider:* && "$*" != *x-portkey-custom-host:* ]]; then
        elsewhere=(-H "x-portkey-custom-host: $UPSTREAM")
    fi
    command curl --silent --fail-with-body "${elsewhere[@]}" "$@"
}
flask() {
    if [[ "$*" == *"--key-from prompt"* ]]; then command flask "$@" <<< sk-of-the-test
    else command flask "$@"; fi
}
trap 'failed=$?' ERR
"""


def clone(folder: Path) -> Path:
    """A clone of the repository in *folder*, by name; its files stay there."""
    checkout = folder / "lastword"
    checkout.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in ("instance", ".git"):
            (checkout / entry.name).symlink_to(entry)
    return checkout


def typed(steps: Sequence[Step], folder: Path, port: int, **environ: str) -> list[str]:
    """The output of each of *steps*, and its status if it has to succeed.

    Fewer, if the shell ended before the last.
    """
    script = folder / "page.sh"
    commands = "".join(map(_shell_lines, steps)).replace(ADDRESS, f"127.0.0.1:{port}")
    script.write_text(_PREAMBLE + commands)
    printed = _run(script, folder, environ).replace(f"127.0.0.1:{port}", ADDRESS)
    return [part.strip("\n") for part in printed.split(_MARK)[:-1]]


def _shell_lines(step: Step) -> str:
    ended = "" if step.shown is not None else 'echo "status $failed"; '
    return f"failed=0\n{step.command}{ended}printf '\\n{_MARK}\\n'\n"


def _run(script: Path, folder: Path, environ: dict[str, str]) -> str:
    """The output of *script*. All processes that it has started end with it."""
    process = subprocess.Popen(
        ["bash", "--noprofile", "--norc", script],
        cwd=folder,
        env=_environment() | environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    try:
        return process.communicate(timeout=_PATIENCE)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0]


def _environment() -> dict[str, str]:
    """The tests' environment, without a gateway's variables, and with its commands."""
    own = ("GATEWAY_", "GUNICORN_", "FLASK_", "WEB_", "MAKE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
