"""What a reader of a page sees, asked of a real browser: faults of layout, of contrast and of overlapping words.

Each `faults` function gives one line a fault; none is a good page. They are proved on planted faults in
test_report_in_browser.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "google-chrome")
ARGUMENTS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@contextmanager
def browser() -> Iterator[Browser]:
    """The browser of this machine, headless; the tests are skipped only where there is none. Nothing is downloaded."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(NAMES)} is on the PATH")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=ARGUMENTS.split())
        yield opened
        opened.close()


COMMON = """
const quiet = "fieldset input, script, style, title, head, clipPath, clipPath *, defs, defs *";
const forScreenReaders = (element) => {
  for (let at = element; at; at = at.parentElement) if (getComputedStyle(at).clipPath === "inset(50%)") return true;
  return false;
};
const seen = (element) =>
  !element.matches(quiet) && element.checkVisibility({ visibilityProperty: true }) && !forScreenReaders(element);
const words = (root) => {
  const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), found = [];
  while (walk.nextNode()) {
    if (walk.currentNode.data.trim() && seen(walk.currentNode.parentElement)) found.push(walk.currentNode);
  }
  return found;
};
const boxes = (node) => { const range = document.createRange(); range.selectNodeContents(node); return [...range.getClientRects()]; };
const name = (element) => `<${element.tagName.toLowerCase()}> ${element.textContent.trim().slice(0, 40)}`;
"""

LAYOUT = """
const width = document.documentElement.clientWidth, faults = [];
if (document.documentElement.scrollWidth > width) faults.push(`the page is ${document.documentElement.scrollWidth} wide, the window ${width}`);
for (const element of document.body.querySelectorAll("*")) {
  if (!seen(element)) continue;
  const box = element.getBoundingClientRect();
  if (box.width && (box.left < -0.5 || box.right > width + 0.5)) faults.push(`outside the window: ${name(element)}`);
  const style = getComputedStyle(element);
  if (style.overflowX !== "visible" && element.scrollWidth > element.clientWidth + 1) faults.push(`clipped: ${name(element)}`);
}
for (const node of words(document.body)) {
  const frame = node.parentElement.closest("td, th, dd, dt, pre, p, h1, h2, h3, h4, label, button, legend, summary, svg")?.getBoundingClientRect();
  const room = getComputedStyle(node.parentElement).whiteSpace === "pre-wrap" ? 12 : 2;  // spaces at a line's end hang
  for (const box of boxes(node)) {
    if (frame && (box.left < frame.left - room || box.right > frame.right + room)) faults.push(`runs out of its place: ${node.data.trim().slice(0, 40)}`);
  }
}
return faults;
"""

PICTURES = """
const faults = [];
for (const picture of [...document.querySelectorAll("svg")].filter(seen)) {
  const texts = [...picture.querySelectorAll("text")].filter(seen);
  if (!picture.getAttribute("aria-label")) faults.push("a picture without a text for those who cannot see it");
  if (texts.length < 3) faults.push("a picture without labels");
  const box = picture.getBoundingClientRect();
  const placed = texts.map((text) => [text, text.getBoundingClientRect()]);
  placed.forEach(([text, at], index) => {
    if (at.left < box.left - 2 || at.right > box.right + 2 || at.top < box.top - 2 || at.bottom > box.bottom + 2) faults.push(`outside its picture: ${text.textContent}`);
    for (const [other, there] of placed.slice(index + 1)) {
      const wide = Math.min(at.right, there.right) - Math.max(at.left, there.left);
      const high = Math.min(at.bottom, there.bottom) - Math.max(at.top, there.top);
      if (wide > 1 && high > 2) faults.push(`${text.textContent} lies over ${other.textContent}`);
    }
  });
}
return faults;
"""

CONTRAST = r"""
const numbers = (colour) => { const found = colour.match(/[\d.]+/g).map(Number); return found.length === 3 ? [...found, 1] : found; };
const light = ([red, green, blue]) => {
  const [r, g, b] = [red, green, blue].map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = numbers(getComputedStyle(at).backgroundColor);
    if (colour[3] === 1) return colour;
  }
  return [255, 255, 255, 1];
};
const faults = new Set();
for (const node of words(document.body)) {
  const element = node.parentElement, style = getComputedStyle(element);
  if (element.disabled) continue;
  const [one, two] = [light(numbers(element.closest("svg") ? style.fill : style.color)), light(behind(element))];
  const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  if (contrast < 4.5) faults.add(`contrast ${contrast.toFixed(2)}: ${name(element)}`);
}
return [...faults];
"""

HEADINGS = """
const levels = [...document.querySelectorAll("h1, h2, h3, h4")].filter(seen).map((head) => Number(head.tagName[1]));
return levels.filter((level, at) => at ? level > levels[at - 1] + 1 : level !== 1).map((level) => `h${level} comes too early`);
"""


def _ask(page: Page, script: str) -> Any:
    return page.evaluate(f"() => {{ {COMMON} {script} }}")


def layout_faults(page: Page) -> list[str]:
    """What is outside the window, clipped, or runs out of its place."""
    return list(_ask(page, LAYOUT))


def picture_faults(page: Page) -> list[str]:
    """Pictures without labels, and labels that lie over each other or outside of their picture."""
    return list(_ask(page, PICTURES))


def contrast_faults(page: Page) -> list[str]:
    """Text with a contrast to its ground under 4.5, WCAG's for text."""
    return list(_ask(page, CONTRAST))


def heading_faults(page: Page) -> list[str]:
    """Headings that skip a level."""
    return list(_ask(page, HEADINGS))


def visible_text(page: Page) -> str:
    """All words that are seen, as they follow each other."""
    return " ".join(str(_ask(page, "return words(document.body).map((node) => node.data).join(' ')")).split())
