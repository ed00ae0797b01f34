"""Which child of a loadbalance: by weight, or by who asks.

Source of the second: Thaler and Ravishankar, "Using name-based mappings to increase hit
rates" (rendezvous hashing), with weights after Schindelhauer and Schomaker.
"""

import hashlib
import math
from collections.abc import Sequence

from .routing import Node


def pick_by_weight(children: Sequence[Node], point: float) -> Node:
    """The child at *point*, between 0 and 1, of the sum of all weights."""
    left = point * sum(child.weight for child in children)
    for child in children:
        left -= child.weight
        if left < 0:
            return child
    return max(children, key=lambda child: child.weight)


def rendezvous(children: Sequence[Node], value: str) -> Node:
    """The child that *value* belongs to, by the weights.

    Without that child, its values spread over the others, and no other value moves.
    """
    return max(children, key=lambda child: _score(child, value))


def _score(child: Node, value: str) -> float:
    if child.weight <= 0:
        return -1.0
    digest = hashlib.blake2b(f"{child.identity}\0{value}".encode(), digest_size=8)
    share = (int.from_bytes(digest.digest()) + 1) / (2**64 + 1)
    return child.weight / -math.log(share)
