"""Single requests: a list of the newest, a live feed of them, and the page of one.

The live feed reads the ledger, and is no hook of the gateway: a request may end in any
worker of any machine, and the database is what they share. So it is about two seconds
late, the ledger's second and its own.
"""

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

# Live feeds in one process, at most; and at most one in so many of its connections, as
# under gthread each feed occupies a thread.
_MAX_FEEDS = 8
_FEEDS_SHARE = 4

# Seconds after which a feed ends. The browser opens it again, which checks the session.
_FEED_SECONDS = 240

# How many ids below the newest are queried again. PostgreSQL assigns an id before the
# commit, so a lower one may become visible after a higher one.
_OVERLAP = 500


def register(routes: Blueprint, services: ConsoleServices) -> None:
    """Add the list, its live feed and the page of one request to *routes*."""
    slots = FeedSlots(services.gateway.clients)

    @routes.get("/requests")
    def requests() -> ResponseReturnValue:
        selection = _selection()
        return render_template(
            "console/requests.html",
            entries=services.ledger.latest(selection, limit=100),
            selection=selection,
            statuses=STATUSES,
            outcome=outcome,
            ledger=services.settings.ledger,
        )

    @routes.get("/requests/live")
    def live() -> ResponseReturnValue:
        # Loaded here: rows are rendered after this function has returned, when there is
        # no request context for `render_template`.
        template = current_app.jinja_env.get_template("console/rows.html")

        def render(entries: list[LedgerEntry]) -> str:
            return template.render(
                entries=entries, outcome=outcome, formatting=formatting
            )

        slots.acquire()
        try:
            feed = LiveFeed(
                services.ledger, _selection(), render=render, release=slots.release
            )
        except BaseException:
            slots.release()
            raise
        # When the worker drains, feeds end first. Browsers reconnect to another worker.
        feed.is_stopping = lambda: services.gateway.clients.is_draining
        return Response(
            feed,
            content_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
            # Werkzeug then leaves the iterable alone, and the server closes it.
            direct_passthrough=True,
        )

    @routes.get("/requests/<int:id>")
    def request_page(id: int) -> ResponseReturnValue:
        entry = services.ledger.request(id)
        if entry is None:
            raise NotFound("There is no such request in the ledger (any more).")
        return render_template(
            "console/request.html",
            entry=entry,
            outcome=outcome,
            timing=Markup(waterfall(bars(entry), formatting.milliseconds)),
        )


def _selection() -> LedgerFilter:
    fields = {name: request.args.get(name, "")[:80] for name in LedgerFilter.__slots__}
    return LedgerFilter(**fields)


class FeedSlots:
    """Limits the live feeds of one process, which is connected to all its *callers*."""

    def __init__(self, callers: ClientConnections) -> None:
        self._callers, self._lock, self._open = callers, threading.Lock(), 0

    def acquire(self) -> None:
        """Take a slot. Raises GatewayError if there is none."""
        max_connections = self._callers.max_connections
        limit = _MAX_FEEDS
        if max_connections is not None:
            limit = min(_MAX_FEEDS, max(1, max_connections // _FEEDS_SHARE))
        with self._lock:
            if self._open >= limit:
                raise GatewayError("Too many pages follow requests here.", status=503)
            self._open += 1

    def release(self) -> None:
        with self._lock:
            self._open -= 1


def outcome(entry: LedgerEntry) -> str:
    """The CSS class for how a request ended: `good`, `poor` or `bad`."""
    if entry.ended in ("failed", "cut"):
        return "bad"
    return "poor" if entry.ended == "left" else "good"


def bars(entry: LedgerEntry) -> list[Bar]:
    """The bars of a request's waterfall: its attempts, then its stream."""
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
        # The ledger stores attempts only where there were several. The one of most
        # requests is rebuilt: it took until the first event, or until the end.
        waited = took if first is None else first
        name = f"{entry.provider or 'gateway'} {entry.target or ''}".strip()
        note = f"{entry.status}, {formatting.duration(waited)}"
        look = "good" if entry.status < 400 else "bad"
        tries = [Bar(name, 0, 1000 * waited, note, look)]
    if first is None or not entry.stream:
        return tries
    note = formatting.duration(took - first)
    return [*tries, Bar("stream", 1000 * first, 1000 * (took - first), note, "c0")]


class LiveFeed:
    """Server-sent events with the rows of requests that end from now on.

    The ledger is queried every *interval* seconds, for *duration* seconds. Each query
    sends something, if only a comment: writing is how a closed connection is noticed.
    *release* is called when the feed is closed.
    """

    def __init__(
        self,
        ledger: LedgerQueries,
        selection: LedgerFilter,
        *,
        render: Callable[[list[LedgerEntry]], str],
        release: Callable[[], object] = lambda: None,
        interval: float = 1.0,
        duration: float = _FEED_SECONDS,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._ledger, self._selection, self._render = ledger, selection, render
        self._interval, self._rounds = interval, round(duration / interval)
        self._sleep, self._release = sleep, release
        self._closing = threading.Lock()
        self.is_stopping: Callable[[], bool] = lambda: False
        newest = ledger.latest(limit=1)
        self._first_id = self._last_id = newest[0].id if newest else 0
        self._sent_ids: deque[int] = deque(maxlen=2 * _OVERLAP)
        self._events = self._generate()

    # An iterator that wraps a generator, and no generator itself: if a client hangs up
    # before the first block is read, the generator has not started, its `finally` would
    # never run, and its slot would be lost. WSGI servers always call `close`.

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._events)

    def close(self) -> None:
        """Release the slot. A second call does nothing."""
        if self._closing.acquire(blocking=False):
            self._release()

    def _generate(self) -> Iterator[bytes]:
        # How long browsers wait before they reconnect, in milliseconds.
        yield b"retry: 2000\n\n"
        for _ in range(self._rounds):
            if self.is_stopping():
                return
            try:
                entries = self._new_entries()
            except StoreUnavailable:
                yield b"event: trouble\ndata: the ledger is out of reach\n\n"
            else:
                if entries:
                    # As JSON, on one line: a newline would end the field `data`.
                    data = orjson.dumps(self._render(entries)).decode()
                    yield f"event: requests\ndata: {data}\n\n".encode()
                else:
                    yield b": nothing new\n\n"
            self._sleep(self._interval)

    def _new_entries(self) -> list[LedgerEntry]:
        """The entries that were not sent yet, the newest first."""
        # Never below the newest one when the feed began: the page has those.
        after = max(self._first_id, self._last_id - _OVERLAP)
        entries = self._ledger.latest(self._selection, after=after)
        new = [each for each in entries if each.id not in self._sent_ids]
        self._sent_ids.extend(each.id for each in new)
        self._last_id = max((each.id for each in new), default=self._last_id)
        return new
