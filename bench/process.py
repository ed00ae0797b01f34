"""Processes of contestants: starts, pins to a processor, measures and ends them.

For Linux: it reads /proc.
"""

import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Numbers of processors: one for the contestant, another for load and upstream, so that
# these take no time from what is measured.
THEIRS, OURS = 0, 1

_TICK = os.sysconf("SC_CLK_TCK")


def pin(cpu: int) -> None:
    """Run this process and its children on *cpu* only, if there are two."""
    if len(os.sched_getaffinity(0)) > 1 or os.sched_getaffinity(0) == {cpu}:
        os.sched_setaffinity(0, {cpu})


def raise_limit() -> None:
    """Allow this process and its children as many open files as the system permits."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


@contextmanager
def running(
    command: Sequence[str],
    environ: Mapping[str, str] = {},  # noqa: B006 - read only
    cpus: Sequence[int] = (THEIRS,),
    folder: Path = ROOT,
) -> Iterator[int]:
    """Run *command* in a process group of its own; yield its id.

    Its output is kept in a file, and shown only if it does not get ready in time.
    """
    # On a machine with one processor, pinning is left out.
    all_cpus = os.sched_getaffinity(0) | {THEIRS, OURS}
    cpus = [cpu for cpu in cpus if cpu in all_cpus and cpu < (os.cpu_count() or 1)]
    # Nothing that configures a gateway is inherited.
    own = ("GATEWAY_", "GUNICORN_", "FLASK_", "WEB_")
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(own)}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**inherited, **environ},
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches only the benchmark, which then ends the group.
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cpus or all_cpus),
        )
        try:
            yield process.pid
        except TimeoutError:
            output.seek(0)
            print(output.read().decode(errors="replace")[-4000:])
            raise
        finally:
            end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """End *process* by SIGTERM, then kill what is left of its process group."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until *condition* holds. Raises TimeoutError."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.005)


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    pids = [pid]
    for each in pids:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            pids += map(int, path.read_text().split())
    return pids


def cpu(pid: int) -> float:
    """Seconds of processor time that a process and all below it have used."""
    ticks = 0
    for each in tree(pid):
        # utime and stime; the name before them may hold anything but the last ")".
        # Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:13]))
    return ticks / _TICK


def memory(pid: int) -> int:
    """The proportional set size in bytes: private memory, and of each shared page the
    part that falls to this process.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(li.split()[1]) for li in lines if li.startswith("Pss:"))
