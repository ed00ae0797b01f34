"""The console under a real gunicorn with several workers."""

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
import requests

from tests.conftest import Script
from tests.console.conftest import CSRF
from tests.upstream import Upstream, completion, whole

from .server import Server, eventually

pytestmark = pytest.mark.e2e

LINK = re.compile(r"Console: (http://\S+/console/login)#(\w+)")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A gateway that generates its console token, as with `make serve`."""
    started = Server(GATEWAY_CONSOLE_TOKEN="new", WEB_CONCURRENCY="2")
    started.wait_until_ready()
    yield started
    started.stop()


@pytest.fixture
def upstream(script: Script) -> Upstream:
    return script(whole(completion()))


def come_in(server: Server) -> requests.Session:
    """A session that was opened with the link in the log."""
    link = LINK.search(server.log_text)
    assert link and link[1].startswith(server.url)
    session = requests.Session()
    # Each request may reach another worker.
    session.headers["Connection"] = "close"
    form = CSRF.search(session.get(link[1], timeout=10).text)
    assert form
    sent = {"token": link[2], "csrf": form[1]}
    assert session.post(link[1], data=sent, timeout=10).status_code == 200
    return session


def test_login_link_holds_for_all_workers(server) -> None:
    with come_in(server) as session:
        pages = [session.get(server.url + "/console/", timeout=10) for _ in range(8)]

    assert all("<h1>Overview</h1>" in page.text for page in pages)
    assert server.log_text.count("Console: ") == 1


def test_live_feed_covers_all_workers(server, upstream) -> None:
    with come_in(server) as session, session.get(
        server.url + "/console/requests/live", stream=True, timeout=10
    ) as feed:
        lines = feed.iter_lines(1)
        assert next(lines).startswith(b"retry")
        for number in range(6):
            answer = server.complete(
                {
                    "x-portkey-provider": "openai",
                    "x-portkey-custom-host": upstream.url,
                    "Authorization": "Bearer sk-theirs",
                },
                model=f"model-{number}",
            )
            assert answer.status_code == 200
        models: set[bytes] = set()
        while len(models) < 6:
            models |= set(re.findall(rb'title=\\"(model-\d)', next(lines)))


def test_closed_live_feed_frees_slot(server: Server) -> None:
    url = server.url + "/console/requests/live"
    with come_in(server) as session:

        def follow() -> requests.Response:
            return session.get(url, stream=True, timeout=10)

        feeds = [follow() for _ in range(17)]
        statuses = [feed.status_code for feed in feeds]
        for feed in feeds:
            feed.close()

        def is_free() -> bool:
            with closing(follow()) as feed:
                return feed.status_code == 200

        assert set(statuses) == {200, 503}
        eventually(is_free)
