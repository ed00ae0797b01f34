"""One bash that types a page, in a folder that looks like a fresh clone."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .pages import ROOT, Step

# Where pages say that the gateway is.
ADDRESS = "127.0.0.1:8787"
_MARK = "=== of the test, not of the page ==="
_PATIENCE = 60

# What is done otherwise than the page says:
# - `git clone` does nothing, since the folder is there.
# - `make serve` shows what the gateway of the test has logged: it was started with the
#   same settings, from the environment in which the test runs. Other targets of make
#   are looked up, and not made.
# - Providers that want a key are a scripted upstream.
# - Who is asked for a secret says one; there is no terminal to say it on.
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
    """A clone of the repository in *folder*, by name; what it makes stays there."""
    checkout = folder / "lastword"
    checkout.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in ("instance", ".git"):
            (checkout / entry.name).symlink_to(entry)
    return checkout


def typed(steps: Sequence[Step], folder: Path, port: int, **environ: str) -> list[str]:
    """What each of *steps* prints, and its status if it has to succeed.

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
    """What *script* prints. All that it has started ends with it."""
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
    """That of the tests, without what configures a gateway, and with its commands."""
    own = ("GATEWAY_", "GUNICORN_", "FLASK_", "WEB_", "MAKE")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
