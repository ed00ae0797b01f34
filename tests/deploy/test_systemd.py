"""deploy/lastword.service, checked by systemd."""

import configparser
import subprocess
import sys
from pathlib import Path

from .files import DEPLOY, INSTANCE, needs

UNIT = (DEPLOY / "lastword.service").read_text()
# Duplicate keys are valid in systemd's files.
PARSED = configparser.ConfigParser(strict=False, interpolation=None)
PARSED.optionxform = str
PARSED.read_string(UNIT)
SERVICE = PARSED["Service"]


def here(folder: Path) -> Path:
    """The unit, with the path of a gunicorn on this machine."""
    path = folder / "lastword.service"
    bin = Path(sys.executable).parent
    path.write_text(UNIT.replace("/opt/lastword/.venv/bin", str(bin)))
    return path


def analyze(*words: str) -> str:
    command = ["systemd-analyze", "--no-pager", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stderr


@needs("systemd-analyze")
def test_systemd_analyze_verifies_unit(tmp_path: Path) -> None:
    complaints = analyze("verify", "--man=no", str(here(tmp_path)))

    assert "lastword.service" not in complaints


@needs("systemd-analyze")
def test_systemd_unit_is_confined(tmp_path: Path) -> None:
    """Its exposure is at most 20 of 100."""
    analyze("security", "--offline=yes", "--threshold=20", str(here(tmp_path)))


def test_systemd_unit_folders() -> None:
    assert SERVICE["ExecStart"] == f"{SERVICE['WorkingDirectory']}/.venv/bin/gunicorn"
    assert SERVICE["Environment"] == f"GATEWAY_INSTANCE={INSTANCE}"
    assert f"/var/lib/{SERVICE['StateDirectory']}" == INSTANCE
    assert SERVICE["KillMode"] == "mixed"
