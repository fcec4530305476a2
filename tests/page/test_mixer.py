"""The mixer and the scheduler compute the mix to 16 bits, in an OfflineAudioContext."""

import base64

import numpy as np
import pytest

from page.fake import RATE, STEMS, music

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

MIXES = [
    {},
    {"drums": {"gain": 0.5}, "vocals": {"gain": 1.5}},
    {"bass": {"pan": -0.3}, "other": {"pan": 1}},
    {"vocals": {"mute": True}},
    {"drums": {"solo": True, "gain": 0.7, "mute": True}, "bass": {"mute": True}},
]


def encode(sound):
    return base64.b64encode(np.ascontiguousarray(sound).tobytes()).decode()


def expected(sound, mix):
    """Return the sum of the stems after gain, pan, mute and solo."""
    any_solo = any(settings.get("solo") for settings in mix.values())
    total = np.zeros((len(sound), 2))
    for i, stem in enumerate(STEMS):
        settings = mix.get(stem, {})
        audible = settings.get("solo", False) if any_solo else not settings.get("mute", False)
        pan = settings.get("pan", 0)
        sides = np.array([min(1, 1 - pan), min(1, 1 + pan)])
        total += audible * settings.get("gain", 1) * sides * sound[:, i] / 32768
    return total


def test_the_mix_is_the_stems_sum_to_16_bits(open_page):
    page = open_page()
    for mix in MIXES:
        check_mix(page, mix)


def check_mix(page, mix):
    sound = music(4000, len(STEMS))
    arguments = {
        "frames": 4000,
        "stems": STEMS,
        "mix": mix,
        "original": None,
        "samples": encode(sound),
    }
    rendered = np.array(page.evaluate(RENDER, arguments)).T
    assert np.abs(rendered - expected(sound, mix)).max() < 0.5 / 32768
    assert np.abs(rendered).max() > 0.05


def test_the_original_replaces_the_mix(open_page):
    sound = music(4000, len(STEMS))
    arguments = {
        "frames": 4000,
        "stems": STEMS,
        "mix": {},
        "original": 0.5,
        "samples": encode(sound),
    }
    rendered = np.array(open_page().evaluate(RENDER, arguments)).T
    assert np.abs(rendered - 0.5 * sound[:, -1] / 32768).max() < 0.5 / 32768


def test_chunks_join_without_a_gap_and_loops_fade_at_the_seam(open_page):
    """The samples play in order, except in the fades and at the seam."""
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
      const frames = [0.05, 0.1, 0.2].map((time) => scheduler.frameAt(time));
      const rendered = await context.startRendering();
      return { sound: [...rendered.getChannelData(0)], frames };
    }"""
    cuts = [[0, 3001, False, False], [3001, 6007, False, True], [2000, 5000, True, False]]
    arguments = {"samples": encode(sound), "channels": 4, "cuts": cuts}
    result = open_page().evaluate(script, arguments)
    start, ramp, seam = 2205, 882, 176
    left = sound[:, 0, 0] / 32768
    played = np.concatenate([left[:6007], left[2000:5000]])
    rendered = np.array(result["sound"])[start : start + len(played)]
    exact = np.r_[ramp + 1 : 6007 - seam, 6007 + seam : len(played) - ramp - 1]
    assert np.abs(rendered[exact] - played[exact]).max() < 0.5 / 32768
    assert np.abs(rendered[6005:6009]).max() < 0.02
    assert not np.array(result["sound"])[start + len(played) + 1 :].any()
    assert result["frames"] == [0, 2205, 2000 + 8820 - 2205 - 6007]


def test_the_original_s_gain_matches_the_loudness_of_any_mix(open_page):
    """The gain follows from the products of channels, for a mix that was never played."""
    sound = music(RATE, len(STEMS))
    mix = {"vocals": {"gain": 0.5, "pan": 0.4}, "bass": {"gain": 1.2}, "drums": {"mute": True}}
    script = """async ({ samples, stems, mix }) => {
      const { Loudness } = await import("/page/loudness.js");
      const loudness = new Loudness();
      const bytes = Uint8Array.from(atob(samples), (c) => c.charCodeAt(0));
      loudness.add(new Int16Array(bytes.buffer), 2 * (stems.length + 1));
      return loudness.matchingGain(mix, stems);
    }"""
    arguments = {"samples": encode(sound), "stems": STEMS, "mix": mix}
    gain = open_page().evaluate(script, arguments)
    energy = np.square(expected(sound, mix)[::8]).sum()
    original = np.square(sound[::8, -1] / 32768).sum()
    assert gain == pytest.approx(np.sqrt(energy / original), rel=1e-4)
