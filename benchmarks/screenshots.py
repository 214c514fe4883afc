"""Pictures of pages at the widths of a phone, a tablet and a desk, and what a browser finds wrong with them.

    pip install playwright        # and Chromium, of the system: apt-get install chromium
    python -m benchmarks.screenshots runs/quickstart/report.html --to shots

Of each page, at 390, 768 and 1280 pixels, light and dark: a PNG, and a line for each fault. Faults are errors
in the console, requests other than for the file, a page wider than its window or than a sheet of A4, text
with a contrast below 4.5, a file of more than 1 MB and a page that takes more than a second to open. Exit
code 1 if there are any.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTHS = (390, 768, 1280)
SCHEMES = ("light", "dark")
PAPER = 718
"""Pixels between the margins of a page of A4."""
MAX_BYTES, MAX_SECONDS = 1_000_000, 1.0
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# Ratio of luminances as WCAG 2 defines it, of each text against the nearest background behind it.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const luminance = (colour) => {
    const [r, g, b] = [...colour].map((part) => part / 255).map(
      (part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const back = rgba(getComputedStyle(each).backgroundColor);
      if (back[3] === 255) return back;
    }
    return [255, 255, 255, 255];
  };
  const faults = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.matches("script, style, title")) continue;
    if (!element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const ink = rgba(element.closest("svg") ? style.fill : style.color);
    const [one, two] = [luminance(ink), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (two + 0.05);
    const said = walker.currentNode.textContent.trim().slice(0, 40);
    if (ratio < 4.5) faults.add(`contrast ${ratio.toFixed(2)} of "${said}"`);
  }
  return [...faults];
}"""
OVERFLOW = """() => {
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide <= 0) return [];
  const guilty = [...document.querySelectorAll("body *")].find(
    (each) => each.getBoundingClientRect().right > innerWidth + 1 && !each.closest(".scroll, pre, nav"));
  return [`${wide} pixels wider than the window: ${guilty?.outerHTML.slice(0, 120)}`];
}"""
OPENED = "() => performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"


def chromium() -> str | None:
    """Return the program of the system's Chromium, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def browser() -> Iterator[Page]:
    """Open a browser window with a temporary profile, and delete the profile at the end."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as profile, sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=chromium(), headless=True, args=list(FLAGS)
        )
        yield context.pages[0]
        context.close()


def faults(
    window: Page,
    file: Path,
    *,
    to: Path | None = None,
    top: int | None = None,
    widths: Sequence[int] = WIDTHS,
) -> Iterator[str]:
    """Yield what is wrong with a page, by width and scheme, and write a PNG of each into a folder.

    Args:
        window: of the browser.
        file: the page.
        to: the folder of the pictures; without it there are none.
        top: pixels of the page that a picture shows; all without it.
        widths: of the window.
    """
    if (size := file.stat().st_size) > MAX_BYTES:
        yield f"{size} bytes"
    said: list[str] = []
    address = file.resolve().as_uri()
    window.on("console", lambda message: said.append(f"console: {message.text}"))
    window.on("pageerror", lambda error: said.append(f"error: {error}"))
    window.on(
        "request", lambda request: None if request.url == address else said.append(f"request: {request.url}")
    )
    for scheme in SCHEMES:
        window.emulate_media(color_scheme=_scheme(scheme))
        for width in widths:
            window.set_viewport_size({"width": width, "height": top or 900})
            window.goto(address)
            if (seconds := window.evaluate(OPENED)) > MAX_SECONDS:
                said.append(f"{seconds:.2f} s to open")
            said += window.evaluate(OVERFLOW) + window.evaluate(CONTRAST)
            if to is not None:
                window.screenshot(
                    path=to / f"{file.parent.name}-{file.stem}-{width}-{scheme}.png", full_page=top is None
                )
            yield from (f"{width} {scheme}: {fault}" for fault in said)
            said.clear()
    window.emulate_media(media="print")
    window.set_viewport_size({"width": PAPER, "height": 900})
    yield from (f"on paper: {fault}" for fault in window.evaluate(OVERFLOW))
    window.emulate_media(media="screen")


def _scheme(name: str) -> Any:
    return name


def main() -> None:
    """Look at each page, and say what is wrong."""
    parser = argparse.ArgumentParser(description="Take pictures of pages, and check them in a browser.")
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--to", type=Path, default=Path("shots"), help="folder of the pictures")
    parser.add_argument("--top", type=int, help="pixels of each page that a picture shows; default: all")
    arguments = parser.parse_args()
    for page in arguments.pages:
        if not page.is_file():
            sys.exit(f"{page} is no page: name a report.html")
    if chromium() is None:
        sys.exit("Chromium is not installed: apt-get install chromium")
    arguments.to.mkdir(parents=True, exist_ok=True)
    found = 0
    with browser() as window:
        for page in arguments.pages:
            for fault in faults(window, page, to=arguments.to, top=arguments.top):
                print(f"{page}: {fault}")
                found += 1
    print(f"{len(arguments.pages)} pages, {found} faults; pictures in {arguments.to}")
    sys.exit(found > 0)


if __name__ == "__main__":
    main()
