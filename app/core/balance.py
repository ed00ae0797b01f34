"""Load balancing: the choice of a child by weight, or by a sticky value.

Source of the latter: Thaler and Ravishankar, "Using name-based mappings to increase hit
rates" (rendezvous hashing), with weights after Schindelhauer and Schomaker.
"""

import hashlib
import math
from collections.abc import Sequence

from .routing import Node


def pick_by_weight(children: Sequence[Node], point: float) -> Node:
    """The child at *point*, between 0 and 1, of the sum of all weights."""
    remaining = point * sum(child.weight for child in children)
    for child in children:
        remaining -= child.weight
        if remaining < 0:
            return child
    # Rounding can leave a rest behind the last child.
    return max(children, key=lambda child: child.weight)


def rendezvous(children: Sequence[Node], value: str) -> Node:
    """The child that *value* is assigned to, by weight.

    If that child is removed, its values spread over the others, and no other moves.
    """

    def score(child: Node) -> float:
        if child.weight <= 0:
            return -1.0
        text = f"{child.identity}\0{value}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        # Uniform between 0 and 1, both excluded.
        share = (int.from_bytes(digest) + 1) / (2**64 + 1)
        return child.weight / -math.log(share)

    return max(children, key=score)
