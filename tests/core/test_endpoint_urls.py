"""URLs of endpoints on custom hosts: one for all forms in which a host is written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.endpoint_urls import endpoint_url

CHAT = "/chat/completions"
GEMINI = "/v1beta/models/gemini-x:generateContent"
DEPLOYMENT = "/deployments/d/chat/completions?api-version=1"


@pytest.mark.parametrize(
    "host, path, api_path, url",
    [
        # Endpoints without a version: that of the host, else the API's own.
        ("http://h", CHAT, "/v1", "http://h/v1/chat/completions"),
        ("http://h/", CHAT, "/v1", "http://h/v1/chat/completions"),
        ("http://h/v1", CHAT, "/v1", "http://h/v1/chat/completions"),
        ("http://h/v1/completions/", CHAT, "/v1", "http://h/v1/chat/completions"),
        ("http://h/api/v3", CHAT, "/v1", "http://h/api/v3/chat/completions"),
        ("http://h/v1/openai", CHAT, "/v1", "http://h/v1/openai/chat/completions"),
        ("http://h/v1beta/openai/", CHAT, "/v1", "http://h/v1beta/openai" + CHAT),
        ("http://h/openai", CHAT, "/v1", "http://h/openai/v1/chat/completions"),
        ("http://h/openai", CHAT, "/openai/v1", "http://h/openai/v1" + CHAT),
        ("http://h/p", CHAT, "/openai/v1", "http://h/p/openai/v1/chat/completions"),
        ("http://h/p", CHAT, "", "http://h/p/chat/completions"),
        # The whole path names the API's, also one without a version.
        ("http://h/p/completions", CHAT, "/v1", "http://h/p/chat/completions"),
        ("http://h/chat/completions", "/completions", "/v1", "http://h/completions"),
        # A prefix that only looks like a part of an endpoint, or of a version.
        ("http://h/chat", CHAT, "/v1", "http://h/chat/v1/chat/completions"),
        ("http://h/vision", CHAT, "/v1", "http://h/vision/v1/chat/completions"),
        ("http://h/v1x", CHAT, "/v1", "http://h/v1x/v1/chat/completions"),
        ("http://v1/p", CHAT, "/v1", "http://v1/p/v1/chat/completions"),
        # Endpoints with a version of their own.
        ("http://h", GEMINI, "/v1beta", "http://h" + GEMINI),
        ("http://h/v1beta", GEMINI, "/v1beta", "http://h" + GEMINI),
        ("http://h/v1", GEMINI, "/v1beta", "http://h" + GEMINI),
        ("http://h/v1beta/models", GEMINI, "/v1beta", "http://h" + GEMINI),
        ("http://h/p/v1beta", GEMINI, "/v1beta", "http://h/p" + GEMINI),
        (
            "http://h/v1beta/models/other:streamGenerateContent",
            GEMINI,
            "/v1beta",
            "http://h" + GEMINI,
        ),
        ("http://h/v1/chat", "/v2/chat", "/v2", "http://h/v2/chat"),
        ("http://h/api/v1", "/v1/completions", "/v1", "http://h/api/v1/completions"),
        ("http://h/v3/openai", "/v1" + CHAT, "/v1", "http://h/v3/openai/v1" + CHAT),
        # Paths with names in them.
        ("http://h/openai", DEPLOYMENT, "", "http://h/openai" + DEPLOYMENT),
        ("http://h/deployments/d", DEPLOYMENT, "", "http://h" + DEPLOYMENT),
        ("http://h/deployments/d/completions", DEPLOYMENT, "", "http://h" + DEPLOYMENT),
        (
            "http://h/deployments/e",
            DEPLOYMENT,
            "",
            "http://h/deployments/e" + DEPLOYMENT,
        ),
    ],
)
def test_endpoint_url_for_host_form(
    host: str, path: str, api_path: str, url: str
) -> None:
    assert endpoint_url(host, path, api_path) == url


@pytest.mark.parametrize(
    "host", ["http://h", "http://h/api", "http://h/v1", "http://h/"]
)
@pytest.mark.parametrize(
    "path", ["/api/generate", "/v1/chat/completions", "/v1/models"]
)
def test_apis_of_one_server_share_root(host: str, path: str) -> None:
    assert endpoint_url(host, path, "/v1", ("/v1", "/api")) == "http://h" + path


SEGMENTS = st.lists(st.from_regex(r"[a-z0-9._~-]{1,8}", fullmatch=True), max_size=3)
API_PATHS = st.sampled_from(["/v1", "/openai/v1", "/api/paas/v4", "/inference/v1"])
ENDPOINTS = st.sampled_from(["/completions", CHAT, "/fim/completions", "/messages"])


@given(SEGMENTS, API_PATHS, ENDPOINTS, ENDPOINTS)
def test_all_forms_lead_to_one_url(
    prefix: list[str], api_path: str, written: str, called: str
) -> None:
    base = "".join(["http://h", *(f"/{segment}" for segment in prefix)]) + api_path
    forms = [base, base + "/", base + written, base + written + "/"]

    urls = {endpoint_url(form, called, api_path) for form in forms}
    versioned = {endpoint_url(form, api_path + called, api_path) for form in forms}

    assert urls == versioned == {base + called}
