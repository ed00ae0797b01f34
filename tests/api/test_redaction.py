"""Keys that upstreams quote are redacted in every encoding, whole or truncated."""

import base64
import json
import logging
import random
import ssl
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.collector import Collector
from tests.conftest import Caller, events
from tests.forms import FORMS, pieces
from tests.upstream import (
    DONE,
    Answer,
    ReceivedRequest,
    Upstream,
    completion,
    data,
    frame,
    stream,
    whole,
)

KEY = "sk-Proj_0123/abc+DEF=ghi"
BEGUN = data(frame("Hel"))

Call = Callable[..., Caller]


def _in_header(text: str, status: int) -> Answer:
    """In the value of a header that callers receive."""
    answer = completion() if status == 200 else {"error": {"message": "no"}}
    return whole(answer, status, f"x-request-id: {text.strip()}"[:3000])


def _error(text: str) -> Any:
    return {"error": {"message": text, "type": text, "param": text, "code": text}}


def _raw(text: str) -> Any:
    """An error of a provider behind a router, in one of the router."""
    raw = json.dumps({"error": {"message": text}})
    return {"error": {"message": "no", "metadata": {"raw": raw}}}


def _line(text: str) -> bytes:
    return " ".join(text.split()).encode()


QUOTING: dict[str, Callable[[str], Answer]] = {
    "text": lambda text: whole(text.encode(), 401, content_type="text/plain"),
    "error": lambda text: whole(_error(text), 401),
    "nested": lambda text: whole({"error": {"message": {"raw": text}}}, 400),
    "detail": lambda text: whole({"detail": [{"loc": [text], "msg": text}]}, 422),
    "other JSON": lambda text: whole({"seen": {"headers": text}}, 500),
    "details": lambda text: whole({"error": {"metadata": {"raw": text, text: 1}}}, 429),
    "raw": lambda text: whole(_raw(text), 429),
    "error event": lambda text: stream(b"event: error\n" + data(_line(text))),
    "error line": lambda text: stream(BEGUN, b"error: " + _line(text) + b"\n\n"),
    "redirect": lambda text: whole(text.encode(), 302),
    "no JSON": lambda text: whole(text.encode()),
    "no completion": lambda text: whole({"seen": text}),
    "within": lambda text: whole(_error(text)),
    "header": lambda text: _in_header(text, 200),
    "header of an error": lambda text: _in_header(text, 429),
    "event": lambda text: stream(data(_error(text))),
    "noise": lambda text: stream(data(text.encode())),
    "late event": lambda text: stream(BEGUN, data(_error(text))),
    "late noise": lambda text: stream(BEGUN, data(text.encode())),
    "late reason": lambda text: stream(BEGUN, data(frame("", text)), DONE),
}

# Texts before a key, which move it across the end of an excerpt.
PADS = st.integers(0, 260).map(lambda n: ("word " * 60)[:n])
# Keys look random; eight zeros may well occur in an answer.
KEYS = st.builds(
    lambda seed, length: "k" + "".join(random.Random(seed).choices(_SIGNS, k=length)),
    st.integers(0, 2**32),
    st.integers(11, 60),
)
_SIGNS = string.ascii_letters + string.digits + "-_+/=."


def shown(response: Any) -> str:
    text: str = response.get_data(as_text=True) + str(response.headers)
    response.close()
    return text


@examples(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=KEYS,
    form=st.sampled_from(sorted(FORMS)),
    quoting=st.sampled_from(sorted(QUOTING)),
    pad=PADS,
    cut=st.integers(0, 400),
)
def test_quoted_keys_are_redacted(
    call: Call,
    upstream: Upstream,
    caplog: Any,
    key: str,
    form: str,
    quoting: str,
    pad: str,
    cut: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    upstream.requests.clear()
    quoted = FORMS[form](key)
    upstream.answers[:] = [QUOTING[quoting](f"{pad}{quoted[: len(quoted) - cut // 9]}")]
    caller = the_caller(call, upstream)
    headers = {"Authorization": f"Bearer {key}"}
    answers = [shown(caller.complete(headers=headers, stream=s)) for s in (False, True)]
    caller.responses.clear()

    logged = "".join(str(vars(record)) for record in caplog.records)
    for text in (*answers, logged):
        assert not any(piece in text for piece in pieces(key, form))


_callers: dict[int, Caller] = {}


def the_caller(call: Call, upstream: Upstream) -> Caller:
    """One caller for all examples of a test."""
    if upstream.port not in _callers:
        _callers.clear()
        _callers[upstream.port] = call(upstream)
    return _callers[upstream.port]


# Every kind of secret


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


SECRETS: dict[str, dict[str, Any]] = {
    "key": {"api_key": KEY},
    "forwarded key": {"headers": {"X-Api-Key": KEY}},
    "forwarded token": {"headers": {"Authorization": f"Token {KEY}"}},
    "forwarded basic": {"headers": {"Authorization": f"Basic {basic('u', KEY)}"}},
    "cookie": {"headers": {"Cookie": f'a=b; session="{KEY}"; c=d'}},
}


@pytest.mark.parametrize("quoting", ["text", "error", "noise", "header"])
@pytest.mark.parametrize("name", SECRETS)
def test_all_credentials_are_redacted(
    call: Call, upstream: Upstream, name: str, quoting: str
) -> None:
    secret = SECRETS[name]
    caller = call(upstream)
    caller.headers.pop("Authorization")
    sent = dict(secret.get("headers", {}))
    if sent:
        caller.headers["x-portkey-forward-headers"] = ", ".join(sent)
    caller.headers |= sent or {"Authorization": f"Bearer {KEY}"}
    for form in FORMS:
        upstream.answers[:] = [QUOTING[quoting](f"seen: {FORMS[form](KEY)}")]
        text = shown(caller.complete())
        assert not any(piece in text for piece in pieces(KEY, form)), form


def test_quoted_request_is_redacted(call: Call, script: Any) -> None:
    """The upstream quotes the whole request, truncated after any number of bytes."""

    def quoting(request: ReceivedRequest) -> Answer:
        lines = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
        size = int(request.json["prompt"])
        return whole(lines.encode()[:size], 400, content_type="text/plain")

    caller = call(script(quoting))
    for size in range(1, 250):
        text = shown(caller.complete(prompt=str(size)))
        assert "sk-a-key" not in text


def test_attempts_are_redacted(call: Call, upstream: Upstream) -> None:
    """The attempts that an error lists, if there were several."""
    upstream.answers[:] = [QUOTING["error"](f"bad {KEY}")]
    target = {"provider": "openai", "api_key": KEY, "custom_host": upstream.url}
    config = {"strategy": {"mode": "fallback"}, "targets": [target, target]}
    caller = call(upstream)
    caller.headers = {"x-portkey-config": json.dumps(config)}
    response = caller.complete()

    attempts = response.json["error"]["attempts"]
    assert [attempt["message"] for attempt in attempts] == ["bad [redacted]"] * 2
    assert "sk-Proj_" not in shown(response)


def test_cached_headers_are_redacted(call: Call, upstream: Upstream) -> None:
    upstream.answers[:] = whole(completion(), 200, f"openai-model: m {KEY}"), [b""]
    caller = call(upstream)
    caller.headers["Authorization"] = f"Bearer {KEY}"
    caller.headers["x-portkey-config"] = '{"cache": {"mode": "simple"}}'
    for _ in range(2):
        response = caller.complete()
        assert response.headers["openai-model"] == "m [redacted]"


def test_model_list_is_redacted(call: Call, upstream: Upstream) -> None:
    caller = call(upstream)
    caller.headers["Authorization"] = f"Bearer {KEY}"
    for form in FORMS:
        upstream.answers[:] = [QUOTING["text"](f"{'word ' * 38}{FORMS[form](KEY)}")]
        text = shown(caller.get("/v1/models"))
        assert not any(piece in text for piece in pieces(KEY, form)), form


def test_answers_without_tokens_are_redacted(
    call: Call, upstream: Upstream, tmp_path: Path
) -> None:
    """A token endpoint, which is sent a secret in a form body."""
    authority = trustme.CA()
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(bundle))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    upstream.encrypt(context)
    pytest.importorskip("google.auth")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    private = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    account = {
        "type": "service_account",
        "client_email": "a@b.example",
        "private_key": private.decode(),
        "token_uri": f"https://127.0.0.1:{upstream.port}/token",
    }

    def quoting(request: ReceivedRequest) -> Answer:
        quoted = request.body.decode()[-220:] + " " + request.body.decode()[:400]
        return whole({"error": "no", "error_description": quoted}, 400)

    upstream.answers[:] = [quoting]
    caller = call(upstream, ca_bundle=str(bundle))
    target = {
        "provider": "vertex-ai",
        "custom_host": upstream.url,
        "vertex_project_id": "p",
        "vertex_service_account_json": account,
    }
    caller.headers = {"x-portkey-config": json.dumps(target)}
    response = caller.complete()
    text = shown(response)

    assert response.status_code == 401 and "gave no token" in text
    assertion = upstream.last.body.decode().partition("assertion=")[2].partition("&")[0]
    parts = assertion.split(".")
    assert len(parts) == 3
    assert not any(part[:8] in text for part in parts)


# Logs and console


def test_logs_rows_and_spans_are_redacted(
    call: Call, script: Any, caplog: Any, monkeypatch: Any, tmp_path: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    collector = Collector()
    otel = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    monkeypatch.setenv(*next(iter(otel.items())))
    forms = [FORMS[name](KEY) for name in FORMS]
    odd = [completion(id=form, model=f"m {form}") for form in forms]
    for answer, form in zip(odd, forms, strict=True):
        answer["choices"][0]["finish_reason"] = form
    errors = [whole(_error(f"no {form}"), 401) for form in forms]
    upstream = script(*errors, *map(whole, odd))
    caller = call(upstream, otel=otel, ledger=True, log_prompts=True)
    caller.headers["Authorization"] = f"Bearer {KEY}"
    for form in forms * 2:
        caller.complete(prompt=f"my key is {form}")
    caller.leave()
    spans = [str(vars(span)) for span in collector.spans]
    collector.stop()
    logged = "".join(str(vars(record)) for record in caplog.records)
    rows = b"".join(path.read_bytes() for path in (tmp_path / "instance").iterdir())

    assert len(spans) == 4 * len(forms) and "my key is" in logged
    for text in (*spans, logged, rows.decode("latin-1")):
        for name in FORMS:
            assert not any(piece in text for piece in pieces(KEY, name)), name


def test_tracebacks_show_no_likely_key() -> None:
    from app.observability.log_format import Console, JSONLines

    try:
        raise ValueError("Bearer abc-secret, sk-0123456789abcdef " + "x" * 50_000)
    except ValueError as e:
        raised = type(e), e, e.__traceback__
    record = logging.LogRecord("n", 40, "f", 1, "it failed: %s", ("y" * 9999,), raised)
    for formatter in (JSONLines(), Console()):
        line = formatter.format(record)
        assert "abc-secret" not in line and "sk-0123" not in line
        assert len(line) < 30_000


def test_late_errors_keep_their_message(call: Call, upstream: Upstream) -> None:
    """Redaction removes nothing else."""
    words = "The server had an error while processing your request. Sorry about that!"
    upstream.answers[:] = [stream(BEGUN, data({"error": {"message": words}}))]
    *_, last = events(call(upstream).complete(stream=True))

    assert last["error"]["message"] == words
