import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

import training_data
from helpers import snr
from htdemucs.errors import AudioError
from htdemucs.training.config import AugmentConfig
from htdemucs.training.dataloader import ExcerptSampler, StemDataset, batches
from htdemucs.training.dataset import Recording
from htdemucs.training.reading import read_excerpt

RATE, SOURCES = training_data.RATE, training_data.SOURCES
OFF = {
    "shift": 0, "flip_channels": False, "flip_sign": False, "scale_min": 1, "scale_max": 1,
    "remix": 0, "repitch": 0,
}  # fmt: skip


def sampler(lengths=(100, 300), weights=(1.0, 1.0), remix=1.0, group=4, seed=0, length=50):
    return ExcerptSampler(
        lengths, weights, length=length, remix=remix, remix_group=group, seed=seed
    )


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=5),
    st.integers(1, 200),
    st.integers(0, 2**31),
    st.integers(0, 10**6),
)
def test_excerpts_lie_inside_their_tracks(lengths, length, seed, step):
    made = sampler(lengths, [1.0] * len(lengths), seed=seed, length=length)
    for example in range(4):
        excerpt = made.excerpt(step, example, source=1)
        assert 0 <= excerpt.start <= max(0, lengths[excerpt.recording] - length)


@given(st.integers(0, 2**31), st.integers(0, 10**6), st.integers(1, 6))
def test_remixing_permutes_a_group(seed, step, group):
    made, whole = sampler(group=group, seed=seed), sampler(group=group, seed=seed, remix=0.0)
    for source in range(3):
        origins = [made.excerpt(step, n, source).origin for n in range(2 * group)]
        assert {first for first, _ in origins} == {step}
        mixed = [second for _, second in origins]
        assert sorted(mixed[:group]) == list(range(group))
        assert sorted(mixed[group:]) == list(range(group, 2 * group))
        for n in range(group):
            assert whole.excerpt(step, n, source).origin == (step, n)
        # What is drawn is the same, whoever gets it.
        drawn = {made.excerpt(step, n, source) for n in range(group)}
        assert drawn == {whole.excerpt(step, n, source) for n in range(group)}


def test_half_of_the_groups_are_mixed_at_a_half():
    made = sampler(remix=0.5)
    mixed = sum(
        any(made.excerpt(step, n, s).origin != (step, n) for n in range(4) for s in range(4))
        for step in range(400)
    )
    assert 150 < mixed < 250


def test_longer_and_heavier_tracks_are_drawn_more_often():
    made = sampler([100, 300, 100, 100], [1, 1, 2, 0])
    count = Counter(made.excerpt(step, 0, 0).recording for step in range(1200))
    assert 150 < count[0] < 250
    assert 520 < count[1] < 680
    assert 320 < count[2] < 480
    assert count[3] == 0


def test_a_seed_is_a_run():
    first, again, other = sampler(seed=1), sampler(seed=1), sampler(seed=2)
    places = [(step, n, s) for step in range(5) for n in range(4) for s in range(4)]
    assert [first.excerpt(*p) for p in places] == [again.excerpt(*p) for p in places]
    assert [first.excerpt(*p) for p in places] != [other.excerpt(*p) for p in places]


@pytest.fixture
def tracks(data):
    folders = sorted((data / "train").iterdir())
    length = training_data.SECONDS * RATE
    return [training_data.recording(folder, length) for folder in folders]


def examples(
    tracks,
    length=2000,
    batch_size=4,
    seed=5,
    sources=SOURCES,
    channels=2,
    by_source=None,
    **changes,
):
    config = AugmentConfig(**{"remix_group": 2, **changes}, sources=by_source or {})
    sampler = ExcerptSampler(
        [t.length for t in tracks], [t.weight for t in tracks], length=length,
        remix=config.remix, remix_group=config.remix_group, seed=seed,
    )  # fmt: skip
    return StemDataset(
        tracks, sampler, config, sources=sources, channels=channels, sample_rate=RATE,
        length=length, batch_size=batch_size, seed=seed,
    )  # fmt: skip


def test_an_example_is_an_excerpt_of_each_source_and_their_sum(tracks):
    made = examples(tracks, **OFF)
    for n in range(6):
        example = made[n]
        excerpt = made.sampler.excerpt(*divmod(n, 4), 0)
        assert example.shape == (5, 2, 2000)
        assert snr(example[1:].sum(0), example[0]) > 100
        for i, source in enumerate(SOURCES):
            whole, _ = soundfile.read(tracks[excerpt.recording].files[source][0], dtype="float32")
            there = whole[excerpt.start : excerpt.start + 2000].T
            assert snr(torch.from_numpy(there.copy()), example[1 + i]) > 120


def test_sources_of_a_remixed_example_come_from_several_tracks(tracks):
    made, whole = examples(tracks, **OFF | {"remix": 1}), examples(tracks, **OFF)
    first = [made[n][1:] for n in range(40)]
    second = [whole[n][1:] for n in range(40)]
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for source in range(4):  # the same excerpts, in another order
        ours = sorted(float(x[source].sum()) for x in first)
        assert ours == sorted(float(x[source].sum()) for x in second)


def test_shifts_move_each_source_by_itself(tracks):
    made = examples(tracks, **OFF | {"shift": 0.2})
    still = examples(tracks, **OFF)
    moved = [not torch.equal(made[0][1 + s], still[0][1 + s]) for s in range(4)]
    assert all(moved)


def test_repitching_is_one_draw_for_what_belongs_together(tracks, monkeypatch):
    from htdemucs.training import augment

    seen = []
    monkeypatch.setattr(
        augment, "repitch", lambda x, semitones, tempo, rate: seen.append((semitones, tempo)) or x
    )
    made = examples(tracks, **OFF | {"repitch": 1})
    for n in range(8):
        made[n]
    by_example = [set(seen[4 * n : 4 * n + 4]) for n in range(8)]
    assert all(len(drawn) == 1 for drawn in by_example)
    assert len(set.union(*by_example)) > 4
    assert all(-2 <= s <= 2 and 0.88 <= t <= 1.12 for d in by_example for s, t in d)


def test_short_tracks_are_followed_by_silence(tracks):
    made = examples(tracks, length=30_000, **OFF)
    example = made[0]
    assert example.shape[-1] == 30_000
    assert example[:, :, : 3 * RATE].abs().amax(-1).min() > 0
    assert not example[:, :, 3 * RATE :].any()


def test_sources_of_other_lengths_are_padded(tracks, tmp_path):
    whole, cut = (tmp_path / name for name in ("whole", "cut"))
    for folder in (whole, cut):
        shutil.copytree(tracks[0].folder, folder)
    wave, _ = soundfile.read(whole / "bass.wav")
    soundfile.write(cut / "bass.wav", wave[:-700], RATE, "PCM_16")
    wave[-700:] = 0
    soundfile.write(whole / "bass.wav", wave, RATE, "PCM_16")
    first, second = (
        examples([training_data.recording(folder, len(wave))], length=3000, **OFF)
        for folder in (whole, cut)
    )
    assert all(torch.equal(first[n], second[n]) for n in range(40))


def test_reading_by_position(tmp_path):
    wave = np.arange(1000, dtype=np.float32)[:, None] / 2000 * [1, -1]
    for suffix in (".wav", ".flac"):
        path = tmp_path / f"x{suffix}"
        soundfile.write(path, wave, RATE, "PCM_24")
        both = read_excerpt(path, 100, 50, 2, RATE)
        assert torch.allclose(both, torch.from_numpy(wave[100:150].T.copy()).float(), atol=1e-6)
        assert read_excerpt(path, 980, 50, 2, RATE).shape == (2, 20)
        assert read_excerpt(path, 1010, 50, 2, RATE).shape == (2, 0)
        assert read_excerpt(path, 0, 10, 1, RATE).abs().max() < 1e-6  # the mean of x and -x
    soundfile.write(tmp_path / "mono.wav", wave[:, 0], RATE)
    assert torch.equal(*read_excerpt(tmp_path / "mono.wav", 5, 50, 2, RATE))


MIXUP = {"mixup": (1.0, 1.0), "mixup_scale_min": 0.5, "mixup_scale_max": 1.5}


def test_mixup_adds_excerpts_of_the_same_source(tracks):
    made, plain = examples(tracks, **OFF | MIXUP), examples(tracks, **OFF)
    gains = []
    for n in range(5):
        step, example = divmod(n, 4)
        for s, source in enumerate(SOURCES):
            rest = made[n][1 + s] - plain[n][1 + s]
            added = []
            for number in range(2):
                excerpt = made.sampler.additional_excerpt(step, example, s, number)
                file = tracks[excerpt.recording].files[source][0]
                added.append(read_excerpt(file, excerpt.start, 2000, 2, RATE).flatten())
            added = torch.stack(added, 1)
            solution = torch.linalg.lstsq(added, rest.flatten()).solution
            assert snr(rest.flatten(), added @ solution) > 80
            gains += solution.tolist()
    assert 0.5 <= min(gains) < 0.7
    assert 1.3 < max(gains) <= 1.5
    assert len({round(gain, 6) for gain in gains}) == len(gains)


def test_mixup_has_its_probabilities_and_changes_no_other_draw(tracks):
    everything = {"effects": 0.3, "tilt": 2.0, "saturate": 0.3, "pan": 0.3, "silence": 0.1}
    plain = examples(tracks, length=100, **everything)
    silent = examples(
        tracks, length=100, mixup=(1.0, 0.5), mixup_scale_min=0, mixup_scale_max=0, **everything
    )
    assert all(torch.equal(plain[n], silent[n]) for n in range(6))
    plain, made = (examples(tracks, length=100, mixup=mixup, **OFF) for mixup in ((), (0.0, 0.25)))
    pairs = zip(
        torch.cat([plain[n][1:] for n in range(30)]),
        torch.cat([made[n][1:] for n in range(30)]),
        strict=True,
    )
    assert 15 < sum(not torch.equal(a, b) for a, b in pairs) < 50


def test_mixup_of_files_that_belong_to_no_track(tracks):
    """Each source lies in its own band, so what is added is of the same source."""
    length = tracks[0].length
    files = {s: tuple(replace(t, files={s: t.files[s]}) for t in tracks) for s in SOURCES}
    pool = Recording("pool", tracks[0].folder, {}, length, 1.0, pool=files)
    made, plain = examples([pool], **OFF | MIXUP), examples([pool], **OFF)
    hertz = torch.fft.rfftfreq(2000, 1 / RATE)
    for n in range(4):
        for s in range(4):
            added = (made[n][1 + s] - plain[n][1 + s]) * torch.hann_window(2000)
            energy = torch.fft.rfft(added).abs().square().sum(0)
            band = (hertz > 55 * 3**s) & (hertz < 190 * 3**s)
            assert energy[band].sum() > 0.95 * energy.sum() > 0


SOURCE_KEYS = {
    "shift": 0.2, "flip_channels": True, "flip_sign": True, "scale_max": 3, "repitch": 1,
    "mixup": [1.0], "silence": 1, "tilt": 3, "saturate": 1, "effects": 1, "pan": 1, "width": 1,
}  # fmt: skip


@pytest.mark.parametrize("key", SOURCE_KEYS)
def test_a_key_for_one_source_changes_that_source_only(tracks, key):
    plain = examples(tracks, **OFF)
    made = examples(tracks, **OFF, by_source={"bass": {key: SOURCE_KEYS[key]}})
    changed = [
        [not torch.equal(made[n][1 + s], plain[n][1 + s]) for s in range(4)] for n in range(6)
    ]
    bass = SOURCES.index("bass")
    assert any(row[bass] for row in changed)
    assert not any(row[s] for row in changed for s in range(4) if s != bass)


def test_sources_of_one_track_keep_their_tempo_whatever_their_pitch(tracks, monkeypatch):
    from htdemucs.training import augment

    seen = []
    monkeypatch.setattr(
        augment, "repitch", lambda x, semitones, tempo, rate: seen.append((semitones, tempo)) or x
    )
    by_source = {"drums": {"repitch_semitones": 0}, "vocals": {"repitch_semitones": 7}}
    made = examples(tracks, **OFF | {"repitch": 1}, by_source=by_source)
    for n in range(8):
        made[n]
    for n in range(8):
        drawn = dict(zip(SOURCES, seen[4 * n : 4 * n + 4], strict=True))
        assert len({tempo for _, tempo in drawn.values()}) == 1
        assert drawn["drums"][0] == 0
    assert max(abs(semitones) for semitones, _ in seen[SOURCES.index("vocals") :: 4]) > 2


def test_batches_are_the_same_however_they_are_made(tracks):
    made = examples(tracks, mixup=(0.5,), by_source={"vocals": {"tilt": 3}})
    whole = list(batches(made, first=3, last=6))
    assert [batch.shape for batch in whole] == [(4, 5, 2, 2000)] * 3
    parts = list(batches(made, first=3, last=6, parts=2))
    assert all(
        torch.equal(batch, torch.cat(parts[2 * i : 2 * i + 2])) for i, batch in enumerate(whole)
    )
    shares = [list(batches(made, first=3, last=6, process=p, processes=2)) for p in range(2)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(batch, torch.cat([first, second]))
    elsewhere = list(batches(made, first=3, last=6, workers=2))
    assert all(torch.equal(a, b) for a, b in zip(whole, elsewhere, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_one_line(tracks, tmp_path, workers):
    (tmp_path / "bad.wav").write_bytes(b"RIFFnonsense")
    files = dict.fromkeys(SOURCES, (tmp_path / "bad.wav",))
    bad = [Recording("bad", tmp_path, files, 3 * RATE, 1.0)]
    with pytest.raises(AudioError, match=r"cannot read .*bad\.wav") as caught:
        list(batches(examples(bad), first=0, last=1, workers=workers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_is_not_finite_is_named(tracks, tmp_path, workers):
    """If a file has changed since it was checked."""
    wave = np.zeros((3 * RATE, 2))
    wave[:, 1] = np.inf
    soundfile.write(tmp_path / "bad.wav", wave, RATE, "FLOAT")
    files = dict.fromkeys(SOURCES, (tmp_path / "bad.wav",))
    bad = examples([Recording("bad", tmp_path, files, 3 * RATE, 1.0)])
    with pytest.raises(AudioError, match=rf"sample \d+ of {tmp_path}/bad\.wav, at .* not a finite"):
        list(batches(bad, first=0, last=1, workers=workers))
