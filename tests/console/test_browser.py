"""The console in a real browser. Skipped, with a reason, where there is none."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from app import create_app
from app.core.hosts import LOCALHOST
from app.settings import Settings
from tests.upstream import Upstream

from .browser import CHROMIUM, DESK, PHONE, chromium, log_in
from .demo import TOKEN, fill, scored, served, trip

pytestmark = pytest.mark.skipif(
    CHROMIUM is None,
    reason="NOT TESTED: the console in a browser. apt-get install chromium",
)

PAGES = (
    "/",
    "/?window=30d&by=key",
    "/requests",
    "/requests/1",
    "/playground",
    "/configs",
    "/configs/by-plan",
    "/try",
    "/requests/999999",
)


@dataclass
class RunningGateway:
    """A gateway with an upstream, and its URL."""

    url: str
    upstream: Upstream
    app: Any
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    instance = str(tmp_path_factory.mktemp("gateway"))
    settings = Settings(
        instance=instance,
        console_token=TOKEN,
        secret_key="s" * 16,
        log_requests=False,
        trusted_custom_hosts=LOCALHOST,
    )
    fill(settings, many=400)
    with ExitStack() as stack:
        app = create_app(settings)
        for part in ("", ".directory", ".ledger"):
            stack.callback(app.extensions[f"lastword{part}"].close)
        trip(app)
        upstream = Upstream([scored()])
        stack.callback(upstream.stop)
        yield RunningGateway(stack.enter_context(served(app)), upstream, app)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def session(browser: Any, gateway: RunningGateway) -> Iterator[Any]:
    """The cookie of a session that is logged in."""
    context = browser.new_context()
    log_in(context.new_page(), gateway.url, TOKEN)
    yield context.storage_state()
    context.close()


@pytest.fixture
def page(browser: Any, gateway: RunningGateway, session: Any) -> Iterator[Any]:
    """A page of that session. No test may cause an error in the browser."""
    context = browser.new_context(viewport=DESK, storage_state=session)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened = _listening(context.new_page(), gateway)
    yield opened
    context.close()
    assert gateway.complaints == []


def _listening(page: Any, gateway: RunningGateway) -> Any:
    """*page*, whose errors and CSP violations are added to *gateway*."""
    gateway.complaints.clear()

    def hear(message: Any) -> None:
        expected = "404 (NOT FOUND)" in message.text
        if message.type in ("error", "warning") and not expected:
            gateway.complaints.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: gateway.complaints.append(str(error)))
    return page


def go(page: Any, gateway: RunningGateway, path: str) -> None:
    page.goto(f"{gateway.url}/console{path}", wait_until="load")


def test_login_link_hides_token(browser: Any, gateway: RunningGateway) -> None:
    context = browser.new_context()
    page = _listening(context.new_page(), gateway)
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    log_in(page, gateway.url, TOKEN)

    assert page.title() == "Overview · lastword"
    assert not any(TOKEN.split()[0] + "%20" in url for url in urls)
    assert "#" not in page.url and gateway.complaints == []
    page.click("text=Log out")
    page.wait_for_url("**/console/login")
    context.close()


def test_wrong_token_error_by_keyboard(browser: Any, gateway: RunningGateway) -> None:
    context = browser.new_context()
    page = context.new_page()
    go(page, gateway, "/")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")

    assert "not the token" in page.inner_text("[role=alert]")
    context.close()


def test_pages_fit_phone_width(page: Any, gateway: RunningGateway) -> None:
    page.set_viewport_size(PHONE)
    for path in PAGES:
        go(page, gateway, path)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], path


# Accessibility, as far as a script can check it.
_FAULTS = """() => {
  const faults = [];
  const shown = (e) => e.getClientRects().length > 0;
  for (const e of document.querySelectorAll("input, select, textarea"))
    if (e.type !== "hidden" && !e.labels.length) faults.push(`label: ${e.id}`);
  for (const e of document.querySelectorAll("button, a, summary"))
    if (shown(e) && !e.innerText.trim()) faults.push(`no text: ${e.outerHTML}`);
  for (const e of document.querySelectorAll("svg"))
    if (!e.getAttribute("aria-label")) faults.push("a picture without words");
  for (const e of document.querySelectorAll("th"))
    if (!e.scope) faults.push(`th without scope: ${e.innerText}`);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) faults.push("an id twice");
  if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
  if (!document.documentElement.lang) faults.push("no language");
  for (const name of ["aria-labelledby", "aria-describedby"])
    for (const e of document.querySelectorAll(`[${name}]`))
      if (!document.getElementById(e.getAttribute(name))) faults.push(name);
  return faults;
}"""


def test_pages_pass_accessibility_audit(page: Any, gateway: RunningGateway) -> None:
    for path in PAGES:
        go(page, gateway, path)
        assert page.evaluate(_FAULTS) == [], path


def test_keyboard_focus_is_visible(page: Any, gateway: RunningGateway) -> None:
    go(page, gateway, "/")
    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.innerText")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")

    assert (focused, outline) == ("Skip to content", "solid")


# Contrast of text with its background, by WCAG 2.2: at least 4.5.
_FAINT = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {
    willReadFrequently: true,
  });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const [R, G, B] = [r, g, b].map((v) => v / 255).map(
      (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const faint = new Set();
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const e = text.parentElement;
    if (!text.data.trim() || !e.getClientRects().length) continue;
    if (e.closest("button:disabled, .skip, .unused, .token")) continue;
    const style = getComputedStyle(e);
    const colour = e.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(rgb(colour)), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.add(`${e.className}: ${text.data.trim()}`);
  }
  return [...faint];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast_is_sufficient(
    page: Any, gateway: RunningGateway, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    for path in PAGES:
        go(page, gateway, path)
        assert page.evaluate(_FAINT) == [], path


def test_overview_plots_usage(page: Any, gateway: RunningGateway) -> None:
    go(page, gateway, "/?window=24h")

    assert page.locator("svg.plot").count() == 5
    assert page.locator("svg.plot rect.c0").count() > 20
    assert "openai" in page.inner_text("table >> nth=0")
    assert "openai: " in page.locator("svg.plot").first.get_attribute("aria-label")
    page.click("text=by key")
    page.wait_for_url("**by=key**")
    assert "batch-jobs" in page.inner_text("table >> nth=0")


def test_finished_request_appears_live(page: Any, gateway: RunningGateway) -> None:
    go(page, gateway, "/requests")
    page.wait_for_selector(".live.on")
    status = send_request(page, gateway, model="a-model-that-is-new")
    page.wait_for_selector("tr.new:has-text('a-model-that-is-new')")
    page.click("tr.new a")
    page.wait_for_url("**/requests/*")

    assert status == 200
    assert "a-model-that-is-new" in page.inner_text("h1")
    assert page.locator("svg.waterfall rect").count() == 2


def send_request(page: Any, gateway: RunningGateway, model: str) -> int:
    """Send a request from another client."""
    reply = page.request.post(
        f"{gateway.url}/v1/completions",
        headers={
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": gateway.upstream.url,
            "Authorization": "Bearer sk-theirs",
        },
        data={"model": model, "prompt": "Hi", "stream": True, "max_tokens": 5},
    )
    assert "[DONE]" in reply.text()
    return int(reply.status)


def play(page: Any, gateway: RunningGateway) -> None:
    go(page, gateway, "/playground")
    page.fill("#provider", "openai")
    page.fill("#key", "sk-of-the-operator")
    page.fill("#headers", f"x-portkey-custom-host: {gateway.upstream.url}")


def test_playground_alternatives_by_keyboard(
    page: Any, gateway: RunningGateway
) -> None:
    play(page, gateway)
    page.focus("#send")
    page.keyboard.press("Enter")
    page.wait_for_selector("#status:has-text('stop')")
    page.focus(".token[tabindex='0']")
    first = page.inner_text("#alternatives")
    page.keyboard.press("ArrowRight")
    second = page.inner_text("#alternatives")

    assert page.inner_text("#text").startswith(" there was a small gateway")
    assert "␣there" in first and "␣lived" in first and "98.0 %" in first
    assert "␣was" in second and page.locator(".token.p9").count() > 2
    assert gateway.upstream.last.headers["authorization"] == "Bearer sk-of-the-operator"
    page.keyboard.press("Escape")
    assert page.is_hidden("#alternatives")


def test_playground_shows_error(page: Any, gateway: RunningGateway) -> None:
    go(page, gateway, "/playground")
    page.fill("#config", "no-such-config")
    page.click("#send")
    page.wait_for_selector("#problem:not([hidden])")
    gateway.complaints.clear()

    assert "no-such-config" in page.inner_text("#problem")
    assert page.is_enabled("#send")


def test_playground_copy_omits_key(page: Any, gateway: RunningGateway) -> None:
    play(page, gateway)
    page.click("[data-copy=curl]")
    page.wait_for_selector("#copied:has-text('copied')")
    copied = page.evaluate("navigator.clipboard.readText()")

    assert copied.startswith(f"curl -N {gateway.url}/v1/completions")
    assert "$LASTWORD_KEY" in copied and "sk-of-the-operator" not in copied


def test_dry_run_marks_target(page: Any, gateway: RunningGateway) -> None:
    go(page, gateway, "/configs")
    page.click("text=Dry run >> nth=0")
    page.fill("#metadata", '{"plan": "pro"}')
    page.click("button:has-text('Dry run')")

    assert "fast" in page.inner_text(".node.picked")
    assert page.inner_text("#verdict") == "groq would be called"
