"""The built site in a real browser: `python -m docs.build` comes before."""

import html
import os
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlparse

import pytest

from docs.texts import ROOT

SITE = ROOT / "docs" / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
TEN = (
    *("index", "using", "notes/index", "notes/86", "search", "recipes/vision.segmentation.unet"),
    *("recipes/vision.classification", "recipes/nlp.language_model", "recipes/training.optimizers"),
    "recipes/audio.augmentation",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SITE.is_dir(), reason="python -m docs.build makes the site"),
]


def pages() -> list[Path]:
    return sorted(SITE.rglob("*.html"))


def test_no_link_is_broken() -> None:
    texts = {page: page.read_text("utf-8") for page in pages()}
    ids = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in texts.items()}
    for page, text in texts.items():
        for tag, link in re.findall(r'<(a|img|script|link)\b[^>]*?\b(?:href|src)="([^"]*)"', text):
            link = html.unescape(link)
            if urlparse(link).scheme:
                assert tag == "a", f"{page.relative_to(SITE)} needs the network for {link}"
                assert link[-1] not in ".,;:)", f"{page.relative_to(SITE)}: {link}"
                continue
            file, anchor = urldefrag(link)
            target = Path(os.path.normpath(page.parent / unquote(urlparse(file).path))) if file else page
            assert target in texts or target.exists(), f"{page.relative_to(SITE)}: {link}"
            assert not anchor or target not in ids or unquote(anchor) in ids[target], (
                f"{page.relative_to(SITE)}: {link}"
            )


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context.new_page()
    context.close()


def test_every_page_opens_on_a_phone_without_an_error(browser: Any, address: str) -> None:
    tab = browser.new_page(viewport={"width": 360, "height": 740})
    errors: list[str] = []
    tab.on("console", lambda message: errors.append(f"{tab.url}: {message.text}") if message.type == "error" else None)
    tab.on("pageerror", lambda error: errors.append(f"{tab.url}: {error}"))
    for page in pages():
        name = page.relative_to(SITE)
        if name.parts[0] == "source" and name.name != "recipes.core.loop.html":
            continue  # these are all made alike
        tab.goto(f"{address}/{name}")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360, f"{name} scrolls sideways"
        pictures = "[...document.images].filter(one => one.loading !== 'lazy' && !one.naturalWidth).map(one => one.src)"
        assert tab.evaluate(pictures) == [], name
    tab.close()
    assert not errors


@pytest.mark.parametrize(("page", "asked"), [("", "U-Net"), ("zh/", "分割"), ("zh/", "U-Net")])
def test_search_finds(tab: Any, address: str, page: str, asked: str) -> None:
    tab.goto(f"{address}/{page}search.html?q={asked}")
    tab.wait_for_selector("#search-results ul.search li a", timeout=20_000)
    links = tab.eval_on_selector_all("#search-results ul.search li a", "all => all.map(one => one.href)")
    assert any("recipes/vision.segmentation" in link for link in links)


def test_filters_show_what_they_admit(tab: Any, address: str) -> None:
    tab.goto(f"{address}/index.html")
    every = tab.locator(".card:visible").count()
    tab.select_option("[data-filter=notes]", "87")
    names = tab.eval_on_selector_all(".card:not([hidden])", "all => all.map(one => one.getAttribute('href'))")
    assert names
    assert all("segmentation" in name or "fine_tuning" in name for name in names)
    assert tab.locator(".count span").inner_text() == str(len(names))
    tab.select_option("[data-filter=notes]", "")
    tab.fill("[data-filter=look]", "量化")
    assert 0 < tab.locator(".card:visible").count() < every
    tab.fill("[data-filter=look]", "")
    tab.select_option("[data-filter=needs]", "-")
    assert 0 < tab.locator(".card:visible").count() < every


def test_the_button_copies(tab: Any, address: str) -> None:
    tab.goto(f"{address}/recipes/vision.segmentation.unet.html")
    command = tab.locator("div.highlight", has_text="recipes copy unet").first
    command.hover()
    command.locator("button.copybtn").click()
    assert tab.evaluate("navigator.clipboard.readText()").startswith("recipes copy unet mine.py")


@pytest.mark.parametrize(("scheme", "folder"), [("light", ""), ("dark", "zh/")])
def test_contrast_and_alternative_texts(browser: Any, address: str, scheme: str, folder: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab = browser.new_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    found = []
    for page in TEN:
        tab.goto(f"{address}/{folder}{page}.html")
        for fault in axe.run(tab).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                found.append((page, fault["id"], fault["nodes"][0]["html"][:200]))
    tab.close()
    assert not found
