"""Login: the console's token opens a session, which is a signed cookie.

Nothing is stored, so that any worker of any machine can check a session. The cookie
holds a random id and whether its owner has logged in, with a timestamp and a signature.
The signing key is derived from the token: a new token ends all sessions. The price is
that a copy of a cookie stays valid after a logout, until it expires.

Every POST has to carry a CSRF token, an HMAC of the session's id. The cookie is
SameSite=Strict, so other sites cannot send it in any case; the token also stops pages
of another port of this host, which is the same site. The login form has one, too, in a
session that is not logged in: otherwise a site could log its visitors in unnoticed.

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

# Seconds that a session lasts, and that a login form can be sent.
_SESSION_AGE = 12 * 3600
_FORM_AGE = 3600

# Wrong tokens from one address, on all machines that share their limits.
_WRONG_TOKENS = Limits(requests_per_minute=10)

# Bytes of a form, which anybody may send.
_MAX_FORM = 2**18

# What a session id begins with: whether its owner has logged in.
_LOGGED_IN, _LOGGED_OUT = "in", "out"

_PUBLIC = {"console.login", "console.enter", "console.static"}


class Login:
    """Protects the console. *meter* counts wrong tokens."""

    def __init__(self, settings: Settings, meter: Meter) -> None:
        self._token, self._meter = settings.console_token.encode(), meter
        self._settings = settings
        # Two keys from one token: a CSRF token, which pages show, must never be the
        # signature of a cookie.
        key = hmac.digest(self._token, b"sessions of the console", hashlib.sha256)
        self._signer = TimestampSigner(key, digest_method=hashlib.sha256)
        self._csrf_key = hmac.digest(
            self._token, b"forms of the console", hashlib.sha256
        )

    def protect(self, routes: Blueprint) -> None:
        """Require a session for all of *routes*, and add the pages that open one."""
        routes.before_request(self._check_session)
        routes.get("/login")(self.login)
        routes.post("/login", endpoint="enter")(self.enter)
        routes.post("/logout")(self.logout)
        routes.context_processor(lambda: {"csrf": self._csrf(g.console_session)})

    # Pages

    def login(self) -> ResponseReturnValue:
        """The form for the token."""
        if g.console_session.startswith(_LOGGED_IN):
            return redirect(url_for("console.overview"))
        return self._login_form()

    def enter(self) -> ResponseReturnValue:
        """A new session, if the token is right.

        The right one is accepted even after too many wrong ones: nobody at the same
        address, such as behind one proxy, can lock the operator out.
        """
        token = request.form.get("token", "").strip().encode()
        # In constant time, so that the time of the response tells nothing of the token.
        if hmac.compare_digest(token, self._token):
            # 303: the browser follows with a GET. A new id, so that whoever planted the
            # one of the login form does not share the session (session fixation).
            response = make_response(redirect(url_for("console.overview"), 303))
            session = _new_session(_LOGGED_IN)
            return self._set_cookie(response, session, _SESSION_AGE)
        if token:
            holder = f"console:{throttle_key(request.environ, self._settings)}"
            # Counted by the limits of requests: all workers share those.
            attempt = UsageRequest(holder, _WRONG_TOKENS, 0, None)
            try:
                self._meter.reserve([attempt], time.time())
            except LimitReached as e:
                problem = "Too many wrong tokens. Wait for a minute."
                page = self._login_form(problem, 429)
                page.headers["Retry-After"] = e.headers.get("retry-after", "60")
                return page
        return self._login_form("That is not the token of this gateway.", 401)

    def logout(self) -> ResponseReturnValue:
        """Delete the cookie."""
        response = make_response(redirect(url_for("console.login"), 303))
        response.delete_cookie(_COOKIE, path="/console")
        return response

    def _login_form(self, problem: str = "", status: int = 200) -> Response:
        # The form needs a CSRF token, which needs a session.
        if not g.console_session:
            g.console_session = _new_session(_LOGGED_OUT)
        page = render_template("console/login.html", problem=problem)
        response = make_response(page, status)
        return self._set_cookie(response, g.console_session, _FORM_AGE)

    # Checks of every request

    def _check_session(self) -> ResponseReturnValue | None:
        """Before each request: check its session, and the CSRF token of a POST.

        Without a session, pages redirect to the login form.
        """
        request.max_content_length = _MAX_FORM
        try:
            cookie = request.cookies.get(_COOKIE, "")
            # Raises BadSignature also for an old timestamp.
            session = self._signer.unsign(cookie, max_age=_SESSION_AGE).decode()
        except BadSignature:
            session = ""
        g.console_session = session
        if request.method == "POST":
            # A header for scripts, a field for forms.
            token = request.headers.get("X-CSRF-Token") or request.form.get("csrf", "")
            expected = self._csrf(session)
            # Also for an empty session, whose token anybody could read in a page.
            if not session or not hmac.compare_digest(
                token.encode(), expected.encode()
            ):
                raise Forbidden(
                    "This form is too old, or not ours. Load the page again."
                )
        if request.endpoint in _PUBLIC or session.startswith(_LOGGED_IN):
            return None
        # A redirect would give a script the HTML of the login form.
        if request.is_json or request.accept_mimetypes.best == "text/event-stream":
            raise Unauthorized("Your session has ended.", code="session_ended")
        return redirect(url_for("console.login"))

    def _csrf(self, session: str) -> str:
        return hmac.new(self._csrf_key, session.encode(), hashlib.sha256).hexdigest()

    def _set_cookie(self, response: Response, session: str, age: int) -> Response:
        response.set_cookie(
            _COOKIE,
            self._signer.sign(session).decode(),
            max_age=age,
            # The completions endpoint never gets it. Scripts cannot read it. `secure`
            # only under HTTPS, as the console is also used on http://localhost.
            path="/console",
            secure=request.is_secure,
            httponly=True,
            samesite="Strict",
        )
        return response


def _new_session(state: str) -> str:
    return f"{state}:{secrets.token_urlsafe(18)}"
