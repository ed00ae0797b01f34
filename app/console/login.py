"""Who may come in: a token, then a session in a signed cookie.

The cookie is signed with a key that is made of the token: who changes the token ends
all sessions. It is not kept anywhere, so that a session which was ended by its owner
would go on for who has copied its cookie, until it expires. What changes anything, or
costs something to answer, has to name the session's own CSRF token.

Source: https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet
"""

import hashlib
import hmac
import secrets
import time

from flask import (
    Blueprint,
    Response,
    g,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from itsdangerous import BadSignature, TimestampSigner

from ..api.request.client_address import throttle_key
from ..core.counters import LimitReached, UsageRequest
from ..core.limits import Limits
from ..errors import Forbidden, Unauthorized
from ..settings import Settings
from ..state.meter import Meter

_COOKIE = "lastword_console"

# Seconds after which one has to come in again; and those in which a form of the door
# can be sent.
_SESSION = 12 * 3600
_WAITING = 3600

# Wrong tokens from one address, on all machines that share their limits.
_TRIES = Limits(requests_per_minute=10)

# Bytes of a form, also of who has not come in.
_LONGEST = 2**18

# Who has come in, and who stands before the door.
_IN, _OUT = "in", "out"

# What everybody may see.
_PUBLIC = {"console.login", "console.enter", "console.static"}


class Login:
    """Lets those in who know the console's token. *meter* counts wrong ones."""

    def __init__(self, settings: Settings, meter: Meter) -> None:
        self._token, self._meter = settings.console_token.encode(), meter
        self._settings = settings
        key = hmac.digest(self._token, b"sessions of the console", hashlib.sha256)
        self._signer = TimestampSigner(key, digest_method=hashlib.sha256)
        self._forms = hmac.digest(self._token, b"forms of the console", hashlib.sha256)

    def guard(self, routes: Blueprint) -> None:
        """Have nobody see anything of *routes* who has not come in."""
        routes.before_request(self._check)
        routes.get("/login")(self.login)
        routes.post("/login", endpoint="enter")(self.enter)
        routes.post("/logout")(self.logout)
        routes.context_processor(lambda: {"csrf": self._csrf(g.console_session)})

    # Pages

    def login(self) -> ResponseReturnValue:
        """The form for the token."""
        if g.console_session.startswith(_IN):
            return redirect(url_for("console.overview"))
        return self._form()

    def enter(self) -> ResponseReturnValue:
        """A session, for the token; others of the same address cannot lock it out."""
        sent = request.form.get("token", "").strip().encode()
        if hmac.compare_digest(sent, self._token):
            return self._keep(redirect(url_for("console.overview"), 303), _IN, _SESSION)
        if not sent:
            return self._form("That is not the token of this gateway.", 401)
        try:
            self._count_wrong()
        except LimitReached as e:
            page = self._form("Too many wrong tokens. Wait for a minute.", 429)
            page.headers["Retry-After"] = e.headers.get("retry-after", "60")
            return page
        return self._form("That is not the token of this gateway.", 401)

    def logout(self) -> ResponseReturnValue:
        """Out again."""
        response = make_response(redirect(url_for("console.login"), 303))
        response.delete_cookie(_COOKIE, path="/console")
        return response

    def _form(self, problem: str = "", status: int = 200) -> Response:
        if not g.console_session:
            g.console_session = _new(_OUT)
        page = render_template("console/login.html", problem=problem)
        return self._keep(make_response(page, status), g.console_session, _WAITING)

    # Checks

    def _check(self) -> ResponseReturnValue | None:
        request.max_content_length = _LONGEST
        g.console_session = self._session()
        if request.method == "POST":
            self._check_form()
        if request.endpoint in _PUBLIC or g.console_session.startswith(_IN):
            return None
        if request.is_json or request.accept_mimetypes.best == "text/event-stream":
            raise Unauthorized("Your session has ended.", code="session_ended")
        return redirect(url_for("console.login"))

    def _check_form(self) -> None:
        given = request.headers.get("X-CSRF-Token") or request.form.get("csrf", "")
        wanted = self._csrf(g.console_session)
        known = bool(g.console_session)
        if not (known and hmac.compare_digest(given.encode(), wanted.encode())):
            raise Forbidden("This form is too old, or not ours. Load the page again.")

    def _session(self) -> str:
        """That of the cookie, with whether its owner has come in; empty without."""
        try:
            given = request.cookies.get(_COOKIE, "")
            session = self._signer.unsign(given, max_age=_SESSION).decode()
        except BadSignature:
            return ""
        return session

    def _csrf(self, session: str) -> str:
        return hmac.new(self._forms, session.encode(), hashlib.sha256).hexdigest()

    def _count_wrong(self) -> None:
        holder = f"console:{throttle_key(request.environ, self._settings)}"
        self._meter.reserve([UsageRequest(holder, _TRIES, 0, None)], time.time())

    def _keep(self, response: ResponseReturnValue, session: str, age: int) -> Response:
        """*response*, with a cookie of *session*; of a new one, if that is `in`."""
        told = make_response(response)
        told.set_cookie(
            _COOKIE,
            self._signer.sign(_new(_IN) if session == _IN else session).decode(),
            max_age=age,
            path="/console",
            secure=request.is_secure,
            httponly=True,
            samesite="Strict",
        )
        return told


def _new(state: str) -> str:
    return f"{state}:{secrets.token_urlsafe(18)}"
