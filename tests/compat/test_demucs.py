"""The modules that mirror the published package give what it gives."""

import random
from concurrent.futures import CancelledError
from pathlib import Path

import demucs.api as published_api
import demucs.apply as published_apply
import demucs.audio as published_audio
import demucs.pretrained as published_pretrained
import demucs.utils as published_utils
import pytest
import torch
from demucs.demucs import Demucs as PublishedDemucs
from demucs.hdemucs import HDemucs as PublishedHDemucs

from helpers import snr
from htdemucs import load_model
from htdemucs.audio import AudioFile as Reader
from htdemucs.compat import networks
from htdemucs.compat.demucs import api, apply, audio, pretrained, repo, states, utils
from htdemucs.errors import AudioError, CheckpointError, SeparationError
from reference.conftest import SMALL_DEMUCS, SMALL_HDEMUCS, build, save_th

from .conftest import RATE, noise


def both(function):
    """Call a function for both packages, with the same lead-ins; return both results.

    The published transformer draws numbers too, for a feature that is off.
    """
    results = []
    for modules in (
        (published_api, published_apply, published_pretrained),
        (api, apply, pretrained),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(random, "randint", random.Random(7).randint)
            results.append(function(*modules))
    return results


def assert_same(expected, actual):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    assert actual.device == expected.device
    assert snr(expected, actual) >= 100


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("htdemucs", {}),
        ("htdemucs", {"shifts": 0}),
        ("htdemucs", {"shifts": 2}),
        ("htdemucs", {"shifts": 1, "overlap": 0.1}),
        ("htdemucs", {"segment": 0.5, "shifts": 0}),
        ("htdemucs", {"num_workers": 3, "shifts": 0}),
        ("htdemucs_ft", {"shifts": 1}),
        ("htdemucs_6s", {"shifts": 0, "overlap": 0.5}),
    ],
)
def test_apply_model_returns_what_the_published_one_returns(name, options):
    mix = torch.stack([noise(2.1), -noise(2.1)])
    expected, actual = both(
        lambda _, apply, pretrained: apply.apply_model(pretrained.get_model(name), mix, **options)
    )
    assert_same(expected, actual)


@pytest.mark.parametrize("seconds", [0.3, 1])
def test_without_split_a_short_mixture_is_padded(seconds):
    mix = noise(seconds)[None]
    options = {"split": False, "shifts": 0}
    assert_same(
        *both(lambda _, apply, get: apply.apply_model(get.get_model("htdemucs"), mix, **options))
    )
    with pytest.raises(SeparationError, match="longer than one segment"):
        apply.apply_model(pretrained.get_model("htdemucs"), noise(2)[None], **options)


def test_models_of_this_package_can_be_applied():
    mix = noise(0.5)[None]
    model = load_model("htdemucs", device="cpu")
    expected = apply.apply_model(pretrained.get_model("htdemucs"), mix, shifts=0)
    assert torch.equal(apply.apply_model(model, mix, shifts=0), expected)


@pytest.mark.parametrize("mix", [torch.zeros(1, 1, 100), torch.zeros(1, 2, 0)])
def test_impossible_mixtures_are_refused(mix):
    with pytest.raises(SeparationError, match="a mixture must be"):
        apply.apply_model(pretrained.get_model("htdemucs"), mix)


def test_another_transition_is_refused():
    with pytest.raises(SeparationError, match="transition_power"):
        apply.apply_model(pretrained.get_model("htdemucs"), noise(0.1)[None], transition_power=2)


@pytest.mark.parametrize("name", ["htdemucs", "htdemucs_ft", "mine", "aaaaaaa0", "bbbbbbb1"])
def test_models_show_the_published_attributes(name, repo):
    place = None if name.startswith("ht") else repo
    theirs, ours = both(lambda _, __, pretrained: pretrained.get_model(name, place))
    assert type(ours).__name__ == type(theirs).__name__
    for attribute in ("sources", "samplerate", "audio_channels"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)
    assert not ours.training
    if hasattr(theirs, "models"):
        assert ours.weights == theirs.weights
        assert ours.max_allowed_segment == theirs.max_allowed_segment
        assert [float(m.segment) for m in ours.models] == [float(m.segment) for m in theirs.models]
        with pytest.raises(NotImplementedError):
            ours(noise(0.1)[None])
    else:
        assert ours.segment == theirs.segment
        assert_same(theirs(noise(0.4)[None]).detach(), ours(noise(0.4)[None]).detach())


@pytest.mark.parametrize("kind", ["HTDemucs", "HDemucs", "Demucs"])
def test_networks_take_the_published_keywords(kind):
    build = getattr(networks, kind)
    network = build(["a", "b"], channels=8, segment=1)
    assert network(noise(0.1)[None]).shape == (1, 2, 2, RATE // 10)
    with pytest.raises(CheckpointError, match="too few for the network"):
        network.load_state_dict({})


def test_the_name_that_tests_use():
    theirs, ours = both(lambda _, __, pretrained: pretrained.get_model("demucs_unittest"))
    assert type(ours).__name__ == type(theirs).__name__ == "HDemucs"
    assert ours.sources == theirs.sources


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A network of each older kind, of both packages."""
    folder, members = tmp_path_factory.mktemp("family"), []
    for small, kind in ((SMALL_HDEMUCS, PublishedHDemucs), (SMALL_DEMUCS, PublishedDemucs)):
        keywords = small | {"samplerate": RATE}
        network = build(keywords, 1, kind)
        path = save_th(network, keywords, folder / f"{kind.__name__}.th")
        members.append((network, states.load_model(path)))
    return members


@pytest.mark.parametrize(
    "options",
    [
        {"shifts": 2},
        {"shifts": 0, "segment": 1.5},
        {"shifts": 0, "split": False},
        {"shifts": 1, "split": False},
    ],
)
def test_older_networks_give_what_the_published_ones_give(family, options):
    for theirs, ours in family:
        expected, actual = both(
            lambda _, module, __, models=(theirs, ours): module.apply_model(
                models[module is apply], noise(2.3)[None], **options
            )
        )
        assert_same(expected, actual)


def test_bags_of_several_kinds_agree(family):
    expected, actual = both(
        lambda _, module, __: module.apply_model(
            module.BagOfModels(
                [pair[module is apply] for pair in family], [[1, 0, 1, 1], [1, 1, 0, 2]], 0.9
            ),
            noise(2.3)[None],
        )
    )
    assert_same(expected, actual)


def test_a_bag_can_be_made_of_models(repo):
    def stems(_, apply, pretrained):
        members = [pretrained.get_model(name, repo) for name in ("aaaaaaa0", "bbbbbbb1")]
        bag = apply.BagOfModels(members, [[1, 2, 1, 1], [0, 1, 1, 3]], segment=0.7)
        return apply.apply_model(bag, noise(1.5)[None], shifts=0)

    assert_same(*both(stems))


def test_a_network_may_be_in_a_bag_twice(repo):
    def stems(_, apply, pretrained):
        member = pretrained.get_model("aaaaaaa0", repo)
        return apply.apply_model(apply.BagOfModels([member, member]), noise(1.5)[None])

    assert_same(*both(stems))


def test_models_in_a_folder(repo):
    expected, actual = both(
        lambda _, apply, pretrained: apply.apply_model(
            pretrained.get_model("mine", repo), noise(1.2)[None]
        )
    )
    assert_same(expected, actual)
    theirs, ours = both(lambda api, _, __: api.list_models(repo))
    assert ours == theirs
    assert set(published_api.list_models()["bag"]) >= {"htdemucs", "mdx_extra"}
    assert set(api.list_models()["bag"]) >= {"htdemucs", "mdx_extra"}
    assert "955717e8" in api.list_models()["single"]


def test_the_repositories_of_a_folder(repo):
    from htdemucs.compat.demucs.repo import AnyModelRepo, BagOnlyRepo, LocalRepo

    networks = LocalRepo(repo)
    models = AnyModelRepo(networks, BagOnlyRepo(repo, networks))
    assert models.has_model("mine")
    assert not networks.has_model("mine")
    assert len(models.get_model("mine").models) == 2
    assert networks.get_model("bbbbbbb1").sources == ["drums", "bass", "other", "vocals"]


@pytest.mark.parametrize("name", ["nonsense", "hf://no/body"])
def test_a_model_that_is_not_there(name):
    for kind in (api.LoadModelError, repo.ModelLoadingError, RuntimeError):
        with pytest.raises(kind, match=name.rpartition("/")[2]):
            api.Separator(name)


def test_separators_agree(song):
    def separate(api, _, __):
        separator = api.Separator("htdemucs_ft", device="cpu", shifts=1)
        separator.update_parameter(overlap=0.1, segment=None)
        return separator.separate_audio_file(song)

    (their_mix, theirs), (our_mix, ours) = both(separate)
    assert torch.equal(our_mix, their_mix)
    assert list(ours) == list(theirs)
    for name, stem in theirs.items():
        assert_same(stem, ours[name])


def test_separators_show_their_model(song):
    separator = api.Separator(device="cpu")
    assert (separator.samplerate, separator.audio_channels) == (RATE, 2)
    assert separator.model.sources == ["drums", "bass", "other", "vocals"]
    with pytest.raises(TypeError, match="nonsense"):
        separator.update_parameter(nonsense=1)
    with pytest.raises(api.LoadAudioError, match="missing"):
        separator.separate_audio_file(song.with_name("missing.wav"))


def test_a_tensor_at_another_rate_is_resampled():
    wav = torch.sin(torch.arange(2777) / 30).expand(1, -1)
    (their_mix, _), (our_mix, _) = both(
        lambda api, _, __: api.Separator(shifts=0, device="cpu").separate_tensor(wav, RATE // 2)
    )
    assert our_mix.shape == their_mix.shape
    middle = slice(500, -500)
    assert snr(their_mix[:, middle], our_mix[:, middle]) >= 60


def test_callbacks_tell_the_same():
    def told(api, _, __):
        calls = []
        separator = api.Separator("htdemucs_ft", shifts=2, device="cpu", callback=calls.append)
        separator.update_parameter(callback_arg={"job": 7, "state": "ours"})
        separator.separate_tensor(noise(1.3))
        return calls

    theirs, ours = both(told)
    assert ours == theirs
    assert len(ours) > 30


def test_an_interruption_in_a_callback_stops():
    calls = []

    def stop(event):
        calls.append(event)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.Separator(device="cpu", callback=stop).separate_tensor(noise(4))
    assert len(calls) == 3


def test_progress_is_shown_in_a_bar_that_programs_can_replace(capsys, monkeypatch):
    model = pretrained.get_model("htdemucs_ft")
    apply.apply_model(model, noise(2)[None], progress=True)
    bars = capsys.readouterr().err
    assert bars.count("\n") == 4
    assert "seconds" in bars
    seen = []

    class Bar(list):
        def __init__(self, offsets, **_):
            super().__init__(offsets)

        def __iter__(self):
            for offset in super().__iter__():
                seen.append(offset)
                yield offset

    monkeypatch.setattr(apply.tqdm, "tqdm", Bar)
    apply.apply_model(model, noise(2)[None], progress=True, shifts=0)
    assert len(seen) == 4 * 3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {}),
        ("a.wav", {"bits_per_sample": 24, "clip": "clamp"}),
        ("a.WAV", {"as_float": True, "clip": "tanh"}),
        ("a.mp3", {"bitrate": 128, "preset": 7}),
    ],
)
def test_saved_files_agree(name, options, tmp_path):
    wav = 3 * noise(0.5)
    published_audio.save_audio(wav.clone(), tmp_path / name, RATE, **options)
    theirs = Reader(tmp_path / name)
    expected = torch.cat(list(theirs), dim=-1)
    (tmp_path / name).unlink()
    audio.save_audio(wav, tmp_path / name, RATE, **options)
    ours = Reader(tmp_path / name)
    actual = torch.cat(list(ours), dim=-1)
    assert (ours.codec, ours.bit_depth, ours.sample_rate) == (theirs.codec, theirs.bit_depth, RATE)
    if name.endswith("mp3"):  # the published file has the encoder's delay
        assert 0 <= expected.shape[-1] - actual.shape[-1] < 3 * 1152
        return
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= (2**-14 if theirs.bit_depth == 16 else 2**-21)


def test_other_extensions_are_refused(tmp_path):
    for module in (audio, published_audio):
        with pytest.raises(ValueError, match=r"txt"):
            module.save_audio(noise(0.1), tmp_path / "a.txt", RATE)
    with pytest.raises(ValueError, match="mode"):
        audio.prevent_clip(noise(0.1), "nonsense")


@pytest.mark.parametrize("channels", [None, 1, 2])
@pytest.mark.parametrize("streams", [0, slice(None)])
def test_files_are_read_alike(song, streams, channels):
    wav = torch.cat(list(Reader(song)), dim=-1)[:, RATE // 2 : RATE // 2 + RATE]
    if channels == 1:
        wav = wav.mean(0, keepdim=True)
    file = audio.AudioFile(song)
    read = file.read(seek_time=0.5, duration=1, streams=streams, channels=channels)
    assert torch.equal(read, wav if streams == 0 else wav[None])
    assert (file.channels(), file.samplerate(), len(file)) == (2, RATE, 1)
    assert file.duration == pytest.approx(2.3, abs=0.01)
    with pytest.raises(AudioError, match="first audio stream"):
        file.read(streams=1)


@pytest.mark.parametrize("channels", [1, 2])
def test_channels_are_converted_alike(channels):
    for wav in (noise(0.1, 1), noise(0.1, 2), noise(0.1, 4)):
        expected = published_audio.convert_audio(wav, RATE, RATE, channels)
        assert torch.equal(audio.convert_audio(wav, RATE, RATE, channels), expected)
    with pytest.raises(ValueError, match="2 channels cannot become 4"):
        audio.convert_audio_channels(noise(0.1), 4)


def test_helpers_return_what_the_published_ones_return():
    x = torch.arange(20.0).view(2, 10)
    for module in (published_utils, utils):
        assert torch.equal(module.center_trim(x, 7), x[:, 1:8])
        assert module.center_trim(x, torch.zeros(3, 10)).shape == (2, 10)
        with pytest.raises(ValueError, match=r"."):
            module.center_trim(x, 11)
        assert [module.sizeof_fmt(n) for n in (5, 1536, 3 << 50)] == ["5.0B", "1.5KiB", "3.0PiB"]
    for size, stride in ((4, 2), (5, 3), (10, 10), (12, 5)):
        expected = published_utils.unfold(x, size, stride)
        assert torch.equal(utils.unfold(x, size, stride), expected)
    theirs, ours = published_apply.TensorChunk(x, 2, 6), apply.TensorChunk(x, 2, 6)
    for make, chunk in ((published_apply.TensorChunk, theirs), (apply.TensorChunk, ours)):
        part = make(chunk, 1, 9)
        assert (part.offset, part.length, list(part.shape)) == (3, 5, [2, 5])
    for length in (6, 7, 9, 16, 31):
        assert torch.equal(ours.padded(length), theirs.padded(length))
    with utils.temp_filenames(2) as names:
        assert all(Path(name).exists() for name in names)
    assert not any(Path(name).exists() for name in names)
    with utils.DummyPoolExecutor() as pool:
        task, cancelled = pool.submit(max, 1, 2), pool.submit(max, 1)
        assert task.result() == 2
        pool.shutdown()
        with pytest.raises(CancelledError):
            cancelled.result()


def test_valid_lengths_are_the_published_ones(family):
    theirs, ours = both(lambda _, __, pretrained: pretrained.get_model("htdemucs").models[0])
    assert ours.valid_length(5) == theirs.valid_length(5)
    for model in (theirs, ours):
        with pytest.raises(ValueError, match="training"):
            model.valid_length(RATE + 1)
    for theirs, ours in family:
        assert hasattr(ours, "valid_length") == hasattr(theirs, "valid_length")
        if hasattr(theirs, "valid_length"):
            for length in (1, 100, 5_001):
                assert ours.valid_length(length) == theirs.valid_length(length)
