"""The graph that is heard computes what the server's files say, to 16 bits."""

import base64

import numpy as np
import pytest

from page.server import RATE, STEMS, music
from serve.mixes import MIXES

pytestmark = pytest.mark.browser

RENDER = """async ({ frames, stems, mix, original, samples }) => {
  const { Mixer, toBuffer } = await import("/page/mixer.js");
  const context = new OfflineAudioContext(2, frames, 44100);
  const mixer = new Mixer(context, stems);
  mixer.set(mix, { original, smooth: false });
  const bytes = Uint8Array.from(atob(samples), (c) => c.charCodeAt(0));
  const buffer = toBuffer(context, new Int16Array(bytes.buffer), mixer.channels, 44100);
  const source = new AudioBufferSourceNode(context, { buffer });
  source.connect(mixer.input);
  source.start();
  const sound = await context.startRendering();
  return [0, 1].map((side) => [...sound.getChannelData(side)]);
}"""


def encode(sound):
    return base64.b64encode(np.ascontiguousarray(sound).tobytes()).decode()


def mixed(sound, factors):
    return (np.array(factors) * sound[:, :-1] / 32768).sum(axis=1)


def test_the_mix_is_the_stems_sum_to_16_bits(open_page):
    page = open_page()
    for mix, factors in MIXES:
        check_mix(page, mix, factors)


def check_mix(page, mix, factors):
    sound = music(4000, len(STEMS))
    arguments = {
        "frames": 4000,
        "stems": STEMS,
        "mix": mix,
        "original": None,
        "samples": encode(sound),
    }
    heard = np.array(page.evaluate(RENDER, arguments)).T
    assert np.abs(heard - mixed(sound, factors)).max() < 0.5 / 32768
    assert np.abs(heard).max() > 0.05


def test_the_original_is_heard_instead_of_the_mix(open_page):
    sound = music(4000, len(STEMS))
    arguments = {
        "frames": 4000,
        "stems": STEMS,
        "mix": {},
        "original": 0.5,
        "samples": encode(sound),
    }
    heard = np.array(open_page().evaluate(RENDER, arguments)).T
    assert np.abs(heard - 0.5 * sound[:, -1] / 32768).max() < 0.5 / 32768


def test_chunks_join_without_a_gap_and_loops_fade_at_the_seam(open_page):
    """What the scheduler plays is the samples in order, but for its ramps and the faded seam."""
    sound = music(12_000, 1)
    script = """async ({ samples, channels, cuts }) => {
      const { Mixer } = await import("/page/mixer.js");
      const { Scheduler } = await import("/page/scheduler.js");
      const context = new OfflineAudioContext(2, 20000, 44100);
      const mixer = new Mixer(context, ["drums"]);
      mixer.set({}, { smooth: false });
      const scheduler = new Scheduler(context, mixer, 44100, 0);
      const bytes = Uint8Array.from(atob(samples), (c) => c.charCodeAt(0));
      const all = new Int16Array(bytes.buffer);
      cuts.forEach(([from, to, fadeIn, fadeOut]) => {
        scheduler.schedule(all.subarray(from * channels, to * channels), channels,
                           { frame: from, fadeIn, fadeOut, onEnded() {} });
      });
      const heard = [0.05, 0.1, 0.2].map((time) => scheduler.frameAt(time));
      const rendered = await context.startRendering();
      return { sound: [...rendered.getChannelData(0)], heard };
    }"""
    cuts = [[0, 3001, False, False], [3001, 6007, False, True], [2000, 5000, True, False]]
    arguments = {"samples": encode(sound), "channels": 4, "cuts": cuts}
    answer = open_page().evaluate(script, arguments)
    start, ramp, seam = 2205, 882, 176
    left = sound[:, 0, 0] / 32768
    placed = np.concatenate([left[:6007], left[2000:5000]])
    heard = np.array(answer["sound"])[start : start + len(placed)]
    sure = np.r_[ramp + 1 : 6007 - seam, 6007 + seam : len(placed) - ramp - 1]
    assert np.abs(heard[sure] - placed[sure]).max() < 0.5 / 32768
    assert np.abs(heard[6005:6009]).max() < 0.02
    assert not np.array(answer["sound"])[start + len(placed) + 1 :].any()
    assert answer["heard"] == [0, 2205, 2000 + 8820 - 2205 - 6007]


def test_the_original_is_made_as_loud_as_any_mix(open_page):
    """The gain follows from the products of channels, for a mix that was never played."""
    sound = music(RATE, len(STEMS))
    mix, factors = MIXES[-1]
    script = """async ({ samples, stems, mix }) => {
      const { Loudness } = await import("/page/loudness.js");
      const loudness = new Loudness();
      const bytes = Uint8Array.from(atob(samples), (c) => c.charCodeAt(0));
      loudness.add(new Int16Array(bytes.buffer), 2 * (stems.length + 1));
      return loudness.matchingGain(mix, stems);
    }"""
    arguments = {"samples": encode(sound), "stems": STEMS, "mix": mix}
    gain = open_page().evaluate(script, arguments)
    energy = np.square(mixed(sound, factors)[::8]).sum()
    original = np.square(sound[::8, -1] / 32768).sum()
    assert gain == pytest.approx(np.sqrt(energy / original), rel=1e-4)
