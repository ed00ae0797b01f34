"""Login to the console."""

import subprocess
import sys
from typing import Any

import pytest

from app.settings import BadSettings, Settings

from .conftest import Console, Operator
from .demo import TOKEN

PAGES = ("/", "/requests", "/requests/1", "/playground", "/configs", "/try")


def cookie(response: object) -> str:
    cookie: str = response.headers["Set-Cookie"]  # type: ignore[attr-defined]
    return cookie


def test_console_off_without_token(visitor: Console) -> None:
    nobody = visitor(console_token="")

    assert [nobody.get(page).status_code for page in ("/", "/login")] == [404, 404]


def test_console_off_loads_nothing(settings: Settings) -> None:
    code = (
        "import sys; from app import create_app; from app.settings import Settings; "
        f"create_app(Settings(instance={settings.instance!r})); "
        "sys.exit(any(name.startswith('app.console') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_short_console_token_is_refused() -> None:
    with pytest.raises(BadSettings, match="GATEWAY_CONSOLE_TOKEN: must be 16"):
        Settings.from_environ({"GATEWAY_CONSOLE_TOKEN": "short"})


@pytest.mark.parametrize("page", PAGES)
def test_pages_without_session_redirect(visitor: Console, page: str) -> None:
    response = visitor().get(page)

    assert response.status_code == 302
    assert response.headers["Location"] == "/console/login"


def test_login_with_token(visitor: Console) -> None:
    somebody = visitor()
    response = somebody.log_in()

    assert response.status_code == 303
    assert somebody.get().status_code == 200
    assert all(
        word in cookie(response)
        for word in ("HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=43200")
    )
    assert TOKEN not in cookie(response) and "Secure" not in cookie(response)
    assert somebody.get("/login").status_code == 302


def test_session_cookie_is_secure_over_https(visitor: Console) -> None:
    somebody = visitor()
    page = somebody.get("/login", base_url="https://gateway.example")

    assert "Secure" in cookie(page)


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", "ä" * 20])
def test_login_with_wrong_token(visitor: Console, token: str) -> None:
    somebody = visitor()
    response = somebody.log_in(token)

    assert response.status_code == 401
    assert "not the token" in response.get_data(as_text=True)
    assert somebody.get().status_code == 302


def test_wrong_tokens_are_limited_by_address(visitor: Console) -> None:
    somebody = visitor()
    statuses = [somebody.log_in("wrong").status_code for _ in range(10)]
    last = somebody.log_in("wrong")

    assert set(statuses) == {401}
    assert last.status_code == 429 and int(last.headers["Retry-After"]) > 0
    assert somebody.get().status_code == 302


def test_right_token_is_never_locked_out(visitor: Console) -> None:
    somebody = visitor()
    statuses = [somebody.log_in("wrong").status_code for _ in range(12)]

    assert statuses[-1] == 429
    assert somebody.log_in().status_code == 303
    assert somebody.get().status_code == 200


def test_right_tokens_are_not_counted(visitor: Console) -> None:
    somebody = visitor()
    for _ in range(12):
        assert somebody.log_in().status_code == 303
        somebody.post("/logout")

    assert somebody.log_in("wrong").status_code == 401


PROXY = "192.0.2.1"


def behind(proxy: str, forwarded: str) -> dict[str, Any]:
    return {
        "environ_overrides": {"REMOTE_ADDR": proxy},
        "headers": {"X-Forwarded-For": forwarded},
    }


def test_wrong_tokens_count_by_client_behind_proxy(visitor: Console) -> None:
    somebody = visitor(trusted_proxies=(PROXY,))

    def tries(proxy: str, forwarded: str) -> int:
        csrf, options = somebody.csrf(), behind(proxy, forwarded)
        return somebody.post(
            "/login", csrf, data={"token": "wrong"}, **options
        ).status_code

    assert [tries(PROXY, "203.0.113.5") for _ in range(11)][-1] == 429
    assert tries(PROXY, "9.9.9.9, 203.0.113.5") == 429
    assert tries(PROXY, "203.0.113.6") == 401
    # The headers of an untrusted proxy are ignored.
    assert [tries("192.0.2.9", f"203.0.113.{i}") for i in range(11)][-1] == 429


@pytest.mark.parametrize("csrf", ["", "0" * 64, "ä"])
@pytest.mark.parametrize("path", ["/login", "/logout", "/try", "/playground/snippets"])
def test_post_without_csrf_token_refused(
    operator: Operator, path: str, csrf: str
) -> None:
    sent = csrf.encode().decode("latin-1")
    assert operator.post(path, sent, data={"token": TOKEN}).status_code == 403


def test_csrf_token_of_other_session_refused(visitor: Console) -> None:
    one, other = visitor(), visitor()
    for each in (one, other):
        each.log_in()

    assert one.post("/try", other.csrf(), data={}).status_code == 403
    assert one.post("/try", data={}).status_code in (200, 400)


def test_logout_ends_session(operator: Operator) -> None:
    assert operator.post("/logout").status_code == 303
    assert operator.get().status_code == 302


def test_new_token_ends_all_sessions(visitor: Console, operator: Operator) -> None:
    renewed = visitor(console_token="another token of the tests")
    own = operator.client.get_cookie("lastword_console", path="/console")
    assert own
    renewed.client.set_cookie("lastword_console", own.value, path="/console")

    assert renewed.get().status_code == 302


def test_tampered_session_cookie_is_ignored(operator: Operator) -> None:
    own = operator.client.get_cookie("lastword_console", path="/console")
    assert own
    changed = own.value.replace("in:", "in:x")
    operator.client.set_cookie("lastword_console", changed, path="/console")

    assert operator.get().status_code == 302


def test_login_form_cookie_is_no_session(visitor: Console) -> None:
    somebody = visitor()
    somebody.csrf()

    assert somebody.get().status_code == 302
    assert somebody.get("/requests/live", headers=_EVENTS).status_code == 401


def test_oversized_form_is_refused(visitor: Console) -> None:
    somebody = visitor()
    long = {"token": "x" * 2**19}

    assert somebody.post("/login", data=long).status_code == 413
    assert somebody.post("/login", "", data=long).status_code == 413


_EVENTS = {"Accept": "text/event-stream"}


@pytest.mark.parametrize("page", [*PAGES, "/login"])
def test_pages_have_security_headers(operator: Operator, page: str) -> None:
    headers = operator.get(page).headers

    assert headers["Cache-Control"] == "no-store"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
