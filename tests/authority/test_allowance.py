"""No credential and no model outside a key's allowance arrives upstream."""

from pathlib import Path

import pytest

from . import forwarding
from .world import run

# 24 gateways, 100 requests each; `make soak` sends 100,000.
SEEDS, REQUESTS = range(24), 100


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_beyond_allowance_arrives(tmp_path: Path, seed: int) -> None:
    answered, calls = run(tmp_path, seed, REQUESTS)

    # If all requests were refused, the test would prove nothing.
    assert answered >= 5 and calls >= 5


@pytest.mark.parametrize("seed", range(4))
def test_forwarded_headers_carry_no_credential(tmp_path: Path, seed: int) -> None:
    """`make soak` sends 50,000."""
    answered, travelled = forwarding.run(tmp_path, seed, 250)

    assert answered > 150 and travelled > 50
