"""Requests one by one: the newest, those that end just now, and the way of each."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

import orjson
from flask import Blueprint, Response, current_app, render_template, request
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from ..errors import GatewayError, NotFound, StoreUnavailable
from ..gateway.clients.connections import ClientConnections
from ..store.ledger_queries import STATUSES, LedgerEntry, LedgerFilter, LedgerQueries
from . import formatting
from .plots import Bar, waterfall
from .services import ConsoleServices

# Who may follow at a time, in one process; and no more than so great a part of the
# requests that it can hold, as each may hold one of its threads. They come again after
# so many seconds by themselves.
_FOLLOWERS = 8
_PART = 4
_FOLLOWED = 240

# Ids that are looked at again. Workers take ids before they write, and others may have
# written higher ones meanwhile.
_AGAIN = 500


def register(routes: Blueprint, parts: ConsoleServices) -> None:
    """The list, its live part, and the page of one request."""
    places = Places(parts.gateway.clients)

    @routes.get("/requests")
    def requests() -> ResponseReturnValue:
        wanted = _wanted()
        entries = parts.history.latest(wanted, most=100)
        return render_template(
            "console/requests.html",
            entries=entries,
            wanted=wanted,
            statuses=STATUSES,
            outcome=outcome,
            ledger=parts.settings.ledger,
        )

    @routes.get("/requests/live")
    def live() -> ResponseReturnValue:
        return Response(
            _followed(parts, places),
            content_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
            direct_passthrough=True,
        )

    @routes.get("/requests/<int:id>")
    def one(id: int) -> ResponseReturnValue:
        entry = parts.history.request(id)
        if entry is None:
            raise NotFound("There is no such request in the ledger (any more).")
        return render_template(
            "console/request.html",
            entry=entry,
            outcome=outcome,
            timing=Markup(waterfall(bars(entry), formatting.milliseconds)),
        )


def _followed(parts: ConsoleServices, places: "Places") -> "Live":
    """The requests that end from now on. Raises GatewayError if too many follow."""
    places.take()
    try:
        live = Live(parts.history, _wanted(), render=_rows(), release=places.free)
    except BaseException:
        places.free()
        raise
    live.ends = lambda: parts.gateway.clients.is_draining
    return live


def _rows() -> Callable[[list[LedgerEntry]], str]:
    """Makes rows of the list, also when the request that asked for them is over."""
    template = current_app.jinja_env.get_template("console/rows.html")
    return lambda entries: template.render(
        entries=entries, outcome=outcome, words=formatting
    )


class Places:
    """Those of one process for who follows requests, of all its *callers*."""

    def __init__(self, callers: ClientConnections) -> None:
        self._callers, self._lock, self._taken = callers, threading.Lock(), 0

    def take(self) -> None:
        """Take one. Raises GatewayError if there is none."""
        most = self._callers.most
        room = _FOLLOWERS if most is None else min(_FOLLOWERS, max(1, most // _PART))
        with self._lock:
            if self._taken >= room:
                raise GatewayError("Too many pages follow requests here.", status=503)
            self._taken += 1

    def free(self) -> None:
        with self._lock:
            self._taken -= 1


def _wanted() -> LedgerFilter:
    given = {name: request.args.get(name, "")[:80] for name in LedgerFilter.__slots__}
    return LedgerFilter(**given)


def outcome(entry: LedgerEntry) -> str:
    """The class of how a request ended: `good`, `poor` or `bad`."""
    if entry.ended in ("failed", "cut"):
        return "bad"
    return "poor" if entry.ended == "left" else "good"


def bars(entry: LedgerEntry) -> list[Bar]:
    """The way of a request: its tries, then its text."""
    tries = [
        Bar(
            f"{each.provider} {each.path}",
            each.after,
            each.took,
            f"{each.status}, {formatting.duration(each.took / 1000)}",
            "good" if each.status < 400 else "bad",
        )
        for each in entry.tries
    ]
    first, took = entry.first, entry.took
    if not tries:
        waited = took if first is None else first
        name = f"{entry.provider or 'gateway'} {entry.target or ''}".strip()
        note = f"{entry.status}, {formatting.duration(waited)}"
        look = "good" if entry.status < 400 else "bad"
        tries = [Bar(name, 0, 1000 * waited, note, look)]
    if first is None or not entry.stream:
        return tries
    note = formatting.duration(took - first)
    return [*tries, Bar("stream", 1000 * first, 1000 * (took - first), note, "c0")]


class Live:
    """Server-sent events: the rows of requests that end from now on, as *render* has
    them. One look each *every* seconds, for *seconds* at the most.

    It says something each time, so that who has left is missed. *release* is called
    when it is over.
    """

    def __init__(
        self,
        history: LedgerQueries,
        wanted: LedgerFilter,
        *,
        render: Callable[[list[LedgerEntry]], str],
        release: Callable[[], object] = lambda: None,
        every: float = 1.0,
        seconds: float = _FOLLOWED,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._history, self._wanted, self._render = history, wanted, render
        self._every, self._left = every, round(seconds / every)
        self._sleep, self._release = sleep, release
        self._closing = threading.Lock()
        self.ends: Callable[[], bool] = lambda: False
        newest = history.latest(most=1)
        self._begin = self._last = newest[0].id if newest else 0
        self._told: deque[int] = deque(maxlen=2 * _AGAIN)
        self._pieces = self._events()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """Let others follow. Harmless when done twice."""
        if self._closing.acquire(blocking=False):
            self._release()

    def _events(self) -> Iterator[bytes]:
        yield b"retry: 2000\n\n"
        for _ in range(self._left):
            if self.ends():
                return
            yield self._event()
            self._sleep(self._every)

    def _event(self) -> bytes:
        try:
            entries = self._new()
        except StoreUnavailable:
            return b"event: trouble\ndata: the ledger is out of reach\n\n"
        if not entries:
            return b": nothing new\n\n"
        data = orjson.dumps(self._render(entries)).decode()
        return f"event: requests\ndata: {data}\n\n".encode()

    def _new(self) -> list[LedgerEntry]:
        """Those that were not there before, the newest first."""
        after = max(self._begin, self._last - _AGAIN)
        found = self._history.latest(self._wanted, after=after)
        fresh = [each for each in found if each.id not in self._told]
        self._told.extend(each.id for each in fresh)
        self._last = max((each.id for each in fresh), default=self._last)
        return fresh
