"""The colours of the stems: the same everywhere, with contrast, and apart for the colour-blind."""

from itertools import combinations

import numpy as np
import pytest

pytestmark = pytest.mark.browser

STEMS = ("vocals", "drums", "bass", "other", "guitar", "piano")
READ = """(names) => names.map((name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim())"""
PIXEL = """(stem) => {
  const canvas = document.querySelector(`.lane[data-stem=${stem}] .wave canvas`);
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(width / 20, height / 2, 1, 1);
  return data[3] === 255 ? `rgb(${data.slice(0, 3).join(", ")})` : null;
}"""
# Machado, Oliveira and Fernandes 2009: what colours look like with protanopia and deuteranopia
SIGHT = {
    "typical": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
RGB_TO_XYZ = np.array(
    [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
)


def linear(colour):
    """Return the linear RGB of #rrggbb."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """Return the CIELAB coordinates of linear RGB."""
    x, y, z = np.cbrt(RGB_TO_XYZ @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.0888])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(first, second):
    dark, light = sorted(RGB_TO_XYZ[1] @ linear(colour) for colour in (first, second))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_stems_differ_for_everybody_and_stand_out(open_page, scheme):
    page = open_page(color_scheme=scheme)
    surface, *colours = page.evaluate(READ, ["surface", *(f"stem-{stem}" for stem in STEMS)])
    assert min(contrast(colour, surface) for colour in colours) > 3  # WCAG 1.4.11
    for matrix in SIGHT.values():
        seen = [lab(np.array(matrix) @ linear(colour)) for colour in colours]
        assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_waveform_name_slider_and_meter_have_the_stem_s_colour(open_page, server, scheme):
    song = server.add("Six.flac", 6, stems=STEMS)
    page = open_page(f"#{song.id}", color_scheme=scheme, reduced_motion="reduce")
    pixels = {}
    for stem in STEMS:
        lane = page.locator(f".lane[data-stem={stem}]")
        page.wait_for_function(f"(stem) => ({PIXEL})(stem)", arg=stem)
        pixels[stem] = page.evaluate(PIXEL, stem)
        background = "(node, pseudo) => getComputedStyle(node, pseudo).backgroundColor"
        assert lane.locator("h2").evaluate(background, "::before") == pixels[stem]
        assert lane.locator(".meter i").evaluate(background) == pixels[stem]
    assert len(set(pixels.values())) == 6
    page.get_by_role("button", name="Mute Bass").click()
    page.wait_for_function(f"(before) => ({PIXEL})('bass') !== before", arg=pixels["bass"])
    (grey,) = page.evaluate(READ, ["wave-muted"])
    shown = page.evaluate(PIXEL, "bass")
    assert shown == "rgb({}, {}, {})".format(*(int(grey[i : i + 2], 16) for i in (1, 3, 5)))


def test_other_stems_have_the_default_colour(open_page, server):
    song = server.add("Duo.flac", 6, stems=("vocals", "no_vocals"))
    page = open_page(f"#{song.id}")
    colour = "(node) => getComputedStyle(node).getPropertyValue('--wave')"
    lane = page.locator(".lane[data-stem=no_vocals]")
    assert lane.evaluate(colour).strip() == page.evaluate(READ, ["wave"])[0]
