"""The gateway's reader of request headers agrees with werkzeug's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import EnvironHeaders

from app.api.request.headers import RequestHeaders

NAMES = st.sampled_from(
    "content-type Content-Length x-portkey-config X-PORTKEY-CONFIG x_a x-a é".split()
) | st.text(max_size=5)
ENVIRON = {
    "CONTENT_TYPE": "application/json",
    "CONTENT_LENGTH": "",
    "HTTP_CONTENT_TYPE": "none",
    "HTTP_X_PORTKEY_CONFIG": "{}",
    "HTTP_X_A": "é",
    "wsgi.version": (1, 0),
}


@given(NAMES)
def test_headers_match_werkzeugs(name: str) -> None:
    ours, theirs = RequestHeaders(ENVIRON), EnvironHeaders(ENVIRON)

    assert ours.get(name) == theirs.get(name)
    assert ours.get(name, "-") == theirs.get(name, "-")
    assert (name in ours) == (name in theirs)


@pytest.mark.parametrize("name", ["Content-Type", "content_type"])
def test_content_type_has_no_http_prefix(name: str) -> None:
    assert RequestHeaders(ENVIRON).get(name) == "application/json"
