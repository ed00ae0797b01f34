"""Makes the screenshots of docs/console.md: `make screenshots`."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from app import create_app
from app.core.hosts import LOCALHOST
from app.settings import Settings
from tests.upstream import Upstream

from .browser import PHONE, chromium, log_in
from .demo import TOKEN, fill, scored, served, trip

# Small, since every clone contains the screenshots.
_DESK = {"width": 1024, "height": 660}


def main(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    upstream = Upstream([scored()])
    with tempfile.TemporaryDirectory() as instance:
        settings = Settings(
            instance=instance, console_token=TOKEN, trusted_custom_hosts=LOCALHOST
        )
        fill(settings)
        app = create_app(settings)
        trip(app)
        with served(app) as url, chromium() as browser:
            for scheme in ("light", "dark"):
                _desk(_page(browser, url, _DESK, scheme), url, upstream, folder, scheme)
            _phone(_page(browser, url, PHONE, "light"), url, folder)
        for part in ("", ".directory", ".ledger"):
            app.extensions[f"lastword{part}"].close()
    upstream.stop()


def _page(browser: Any, url: str, size: Any, scheme: str) -> Any:
    page = browser.new_page(viewport=size, color_scheme=scheme)
    log_in(page, url, TOKEN)
    return page


def _desk(page: Any, url: str, upstream: Upstream, folder: Path, scheme: str) -> None:
    def shoot(name: str, *in_schemes: str, **options: Any) -> None:
        if scheme in in_schemes:
            page.screenshot(path=folder / f"{name}-{scheme}.png", **options)

    page.goto(f"{url}/console/?window=24h")
    top = {"x": 0, "y": 0, "width": _DESK["width"], "height": 1100}
    shoot("overview", "light", "dark", full_page=True, clip=top)
    page.goto(f"{url}/console/requests")
    page.wait_for_selector(".live.on")
    shoot("requests", "light")
    page.click("text=4 tries >> xpath=ancestor::tr >> a")
    shoot("request", "dark")
    send_prompt(page, url, upstream)
    shoot("playground", "light")
    page.goto(f"{url}/console/configs/by-plan")
    page.fill("#model", "llama-3.3-70b-versatile")
    page.fill("#metadata", '{"plan": "pro"}')
    page.click("button:has-text('Dry run')")
    shoot("dry-run", "light", full_page=True)
    page.goto(f"{url}/console/configs")
    shoot("configs", "dark")


def send_prompt(page: Any, url: str, upstream: Upstream) -> None:
    """Send a prompt from the playground to *upstream*, and focus a token."""
    page.goto(f"{url}/console/playground")
    page.fill("#provider", "openai")
    page.fill("#key", "sk-of-the-operator")
    page.fill("#headers", f"x-portkey-custom-host: {upstream.url}")
    page.click("#send")
    page.wait_for_selector("#status:has-text('stop')")
    page.focus(".token")
    for _ in range(4):
        page.keyboard.press("ArrowRight")


def _phone(page: Any, url: str, folder: Path) -> None:
    page.screenshot(path=folder / "overview-phone.png")
    page.goto(f"{url}/console/requests")
    page.screenshot(path=folder / "requests-phone.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
