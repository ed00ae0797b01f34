"""The headers of a request by name, compared with Werkzeug's reading of them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import EnvironHeaders

from app.api.request.headers import request_headers

ENVIRON: dict[str, Any] = {
    "CONTENT_TYPE": "application/json",
    "CONTENT_LENGTH": "",
    "HTTP_CONTENT_TYPE": "none",
    "HTTP_X_PORTKEY_CONFIG": "{}",
    "HTTP_X_A": "é",
    "wsgi.version": (1, 0),
}
VARIABLES = st.sampled_from([*ENVIRON, "HTTP_X_B", "HTTP_", "REQUEST_METHOD"])


@given(st.dictionaries(VARIABLES, st.text(max_size=5)))
def test_headers_match_werkzeugs(environ: dict[str, Any]) -> None:
    ours, theirs = request_headers(dict(environ)), EnvironHeaders(environ)

    for name in "content-type content-length x-portkey-config x-a x-b".split():
        assert ours.get(name) == theirs.get(name)


def test_content_type_has_no_http_prefix() -> None:
    assert request_headers(dict(ENVIRON))["content-type"] == "application/json"


def test_headers_are_read_once() -> None:
    environ = dict(ENVIRON)

    assert request_headers(environ) is request_headers(environ)
