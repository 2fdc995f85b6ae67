"""What a browser makes of a page: questions to ask it."""

import re

import numpy as np
from playwright.sync_api import Page

# WCAG's contrast of every piece of text on the page with what lies behind it, the worst first
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, below) => [0, 1, 2].map((i) => (top[i] * top[3] + below[i] * (255 - top[3])) / 255).concat(255);
  const light = (c) => [0, 1, 2].map((i) => c[i] / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => element
    ? over(rgba(getComputedStyle(element).backgroundColor), behind(element.parentElement)) : [255, 255, 255, 255];
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || element.closest("script, style, noscript")) continue;
    const style = getComputedStyle(element);
    const colour = rgba(element.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(over(colour, behind(element))), light(behind(element))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.textContent.slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

# The pairs of names in the chart `e` that cover one another, as they are drawn
COVERED = """e => {
  const names = [...e.querySelectorAll(".mark-text.role-mark text")]
    .map((name) => [name.textContent, name.getBoundingClientRect()]);
  const pairs = names.flatMap((a, i) => names.slice(i + 1).map((b) => [a, b]));
  return pairs.filter(([[, a], [, b]]) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3).map(([[a], [b]]) => [a, b]);
}"""


def check_readable(page: Page, least: int) -> None:
    """A page fits its window, is light or dark as asked, and its text, more than `least` pieces, stands out (AA)."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(OVERFLOW) == 0
        background = brightness(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert background < 40 if scheme == "dark" else background > 240
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > least
        assert contrasts[0][0] >= 4.5, contrasts[:3]


def brightness(colour: str) -> float:
    return float(np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]]))
