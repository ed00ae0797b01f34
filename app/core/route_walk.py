"""The way through a route's tree: which target is tried first, and which one next."""

from collections.abc import Callable, Sequence

from ..errors import GatewayError
from .routing import (
    Group,
    Node,
    Strategy,
    Target,
    available_children,
    should_fall_back,
)


class RouteWalk:
    """The targets of the tree under *root*, in the order in which they are tried.

    *pick* chooses the child of a loadbalance among those that it is given; *available*
    says whether a target may be called now. Both are asked when a group is reached, and
    not earlier: what has happened meanwhile counts.
    """

    def __init__(
        self,
        root: Node,
        pick: Callable[[Group, Sequence[Node]], Node],
        available: Callable[[Target], bool] = lambda target: True,
    ) -> None:
        self._root, self._pick, self._available = root, pick, available
        # The fallback groups on the way to the target that is tried, from the outside
        # in, each with its children that are still to come.
        self._fallbacks: list[tuple[Group, list[Node]]] = []

    def first(self) -> Target:
        return self._descend(self._root)

    def after(self, error: GatewayError) -> Target | None:
        """The target that comes next when the last one has failed with *error*.

        None if no group on the way falls back: *error* is the answer then.
        """
        while self._fallbacks:
            group, children = self._fallbacks[-1]
            if children and should_fall_back(error, group.on_status_codes):
                return self._descend(children.pop(0))
            # This group fails as a whole; the one around it decides by its own rules.
            self._fallbacks.pop()
        return None

    def _descend(self, node: Node) -> Target:
        while isinstance(node, Group):
            if node.mode is Strategy.FALLBACK:
                first, *others = available_children(node, self._available)
                self._fallbacks.append((node, others))
                node = first
            elif node.mode is Strategy.LOADBALANCE:
                children = available_children(node, self._available)
                node = self._pick(node, children)
            else:
                # Single; or conditional, whose child was chosen for this request.
                node = node.children[0]
        return node
