import pickle
from fractions import Fraction

import pytest
import torch
from safetensors.torch import load_file

from htdemucs import CheckpointError, HTDemucs, HTDemucsConfig
from htdemucs.weights import demucs_format
from htdemucs.weights.demucs_format import KEYWORDS
from weights.checkpoints import (
    as_json,
    assert_same,
    keywords,
    published_state,
    rewrite,
    save_safetensors,
    save_th,
    tiny,
)

DEFAULTS = KEYWORDS["HTDemucs"].defaults


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bottom_channels": 0},
        {"t_layers": 0, "bottom_channels": 0},
        {"dconv_mode": 1, "audio_channels": 1, "sources": ["voice", "band", "crowd"]},
        {"freq_emb": 0, "segment": Fraction(39, 5), "dconv_depth": 1},
        {"n_fft": 8192, "depth": 5, "growth": 1, "t_layers": 1, "sample_rate": 44100},
        {"t_layers": 11, "channels": 4, "bottom_channels": 4, "dconv_comp": 2},
    ],
)
def test_a_network_is_written_and_read_back(changes, tmp_path):
    model = tiny(**changes)
    demucs_format.write(model, tmp_path / "model.safetensors")
    again = demucs_format.read(tmp_path / "model.safetensors")
    assert again.config == model.config
    assert not again.training
    assert_same(model, again)


def test_names_and_shapes_are_the_published_ones():
    state = published_state(tiny())
    assert all(value.dtype == torch.float16 for value in state.values())
    for name, shape in {
        "encoder.0.conv.weight": [8, 4, 8, 1],
        "encoder.1.dconv.layers.1.0.weight": [2, 16, 3],
        "encoder.1.dconv.layers.0.1.weight": [2],
        "encoder.1.dconv.layers.0.3.weight": [32, 2, 1],
        "encoder.1.dconv.layers.0.4.bias": [32],
        "encoder.1.dconv.layers.0.6.scale": [16],
        "tencoder.0.rewrite.weight": [16, 8, 1],
        "decoder.1.conv_tr.weight": [8, 16, 8, 1],
        "tdecoder.0.rewrite.bias": [32],
        "freq_emb.embedding.weight": [64, 8],
        "channel_upsampler.weight": [16, 16, 1],
        "channel_downsampler_t.bias": [16],
        "crosstransformer.norm_in.weight": [16],
        "crosstransformer.norm_in_t.bias": [16],
        "crosstransformer.layers.0.self_attn.in_proj_weight": [48, 16],
        "crosstransformer.layers.0.norm2.weight": [16],
        "crosstransformer.layers_t.1.cross_attn.out_proj.bias": [16],
        "crosstransformer.layers_t.1.norm1.weight": [16],
        "crosstransformer.layers_t.1.norm2.weight": [16],
        "crosstransformer.layers_t.1.norm3.weight": [16],
        "crosstransformer.layers_t.1.linear1.weight": [64, 16],
        "crosstransformer.layers.1.gamma_2.scale": [16],
        "crosstransformer.layers.1.norm_out.weight": [16],
    }.items():
        assert list(state[name].shape) == shape, name


def test_a_th_file_as_released_is_read(th, model):
    again = demucs_format.read(th)
    assert again.config == HTDemucsConfig(**model.config.to_dict() | {"t_dropout": 0.02})
    assert all(parameter.dtype == torch.float32 for parameter in again.parameters())
    assert_same(model, again)


def test_a_safetensors_file_as_released_is_read(st, model):
    again = demucs_format.read(st)
    assert again.config.segment == 1
    assert again.config.t_dropout == 0.02
    assert_same(model, again)


@pytest.mark.parametrize("count", [1, 9, len(DEFAULTS)])
def test_positional_arguments_are_read(contents, count, model, tmp_path):
    everything = DEFAULTS | contents["kwargs"]
    contents["args"] = tuple(list(everything.values())[:count])
    contents["kwargs"] = {name: everything[name] for name in list(everything)[count:]}
    assert_same(model, demucs_format.read(save_th(contents, tmp_path / "args.th")))


def test_too_many_arguments_are_refused(contents, tmp_path, refused):
    contents["args"] = (0,) * (len(DEFAULTS) + 1)
    refused(save_th(contents, tmp_path / "args.th"), "too many")


def test_a_segment_may_be_a_fraction(contents, model, tmp_path):
    contents["kwargs"]["segment"] = Fraction(39, 5)
    assert demucs_format.read(save_th(contents, tmp_path / "f.th")).segment == Fraction(39, 5)
    st = save_safetensors(model, tmp_path / "f.safetensors", segment=Fraction(39, 5))
    assert demucs_format.read(st).segment == Fraction(39, 5)


def test_fractions_pickled_by_older_pythons_are_read(contents, tmp_path):
    class OldFraction:
        def __reduce__(self):
            return Fraction, ("39/5",)

    contents["kwargs"]["segment"] = OldFraction()
    assert demucs_format.read(save_th(contents, tmp_path / "f.th")).segment == Fraction(39, 5)


def test_missing_keywords_are_the_published_defaults(tmp_path):
    model = tiny(dconv_mode=1, bottom_channels=0, segment=10, t_heads=8, sample_rate=44100)
    sizes = ("channels", "depth", "t_layers")
    kwargs = {"sources": list(model.sources), "nfft": 512}
    kwargs |= {name: getattr(model.config, name) for name in sizes}
    contents = {"args": (), "kwargs": kwargs, "state": published_state(model)}
    again = demucs_format.read(save_th(contents, tmp_path / "few.th"))
    assert again.config == model.config
    assert_same(model, again)


def test_parameters_that_share_memory_in_a_file_are_separate_here(contents, tmp_path):
    state = contents["state"]
    state["encoder.0.rewrite.bias"] = state["tencoder.0.rewrite.bias"] = torch.ones(16)
    model = demucs_format.read(save_th(contents, tmp_path / "tied.th"))
    with torch.no_grad():
        model.spectral_encoder[0].rewrite.bias.zero_()
    assert model.time_encoder[0].rewrite.bias.eq(1).all()


def test_other_floats_and_memory_layouts_are_read(contents, model, tmp_path):
    state = contents["state"]
    transposed = state["channel_upsampler.weight"].transpose(0, 1).contiguous().transpose(0, 1)
    state |= {
        "channel_upsampler.weight": transposed,
        "freq_emb.embedding.weight": state["freq_emb.embedding.weight"].double(),
        "encoder.0.conv.bias": torch.nn.Parameter(state["encoder.0.conv.bias"].float()),
    }
    assert_same(model, demucs_format.read(save_th(contents, tmp_path / "other.th")))


@pytest.mark.parametrize("kind", ["th", "safetensors"])
@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("encoder.0.conv.weight", None, ["lacks", "encoder.0.conv.weight", "(1)"]),
        ("encoder.7.conv.weight", torch.ones(3), ["unknown", "encoder.7.conv.weight"]),
        ("bad\nname\x1b[31m", torch.ones(3), ["unknown", r"bad\nname\x1b"]),
        ("encoder.0.conv.weight", torch.ones(8, 4, 8), ["[8, 4, 8]", "not [8, 4, 8, 1]"]),
        ("channel_upsampler.weight", torch.ones(16, 8, 3), ["channel_upsampler.weight"]),
        ("tencoder.0.conv.bias", torch.full((8,), torch.nan), ["tencoder.0", "finite"]),
        ("tencoder.0.conv.bias", torch.full((8,), -torch.inf), ["finite"]),
        ("tencoder.0.conv.bias", torch.ones(8, dtype=torch.int64), ["tencoder.0"]),
    ],
)
def test_missing_unknown_and_impossible_parameters_are_refused(
    kind, name, change, words, contents, st, tmp_path, refused
):
    state = contents["state"]
    if change is None:
        del state[name]
    else:
        state[name] = change
    changed = {"th": lambda: save_th(contents, tmp_path / "bad.th"), "safetensors": lambda: st}
    if kind == "safetensors":
        rewrite(st, state)
    refused(changed[kind](), *words)


@pytest.mark.parametrize(
    "make",
    [
        lambda: "text",
        lambda: None,
        lambda: [1.0] * 8,
        lambda: torch.ones(8, device="meta"),
        lambda: torch.ones(8).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(8), 0.1, 0, torch.qint8),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of torch, about the kinds of tensor that are saved here
def test_parameters_that_are_no_plain_tensors_are_refused(make, contents, tmp_path, refused):
    contents["state"]["tencoder.0.conv.bias"] = make()
    refused(save_th(contents, tmp_path / "bad.th"))


def test_networks_of_unknown_classes_are_refused(contents, st, tmp_path, refused):
    klass = "demucs.tasnet.ConvTasNet"
    refused(save_th(contents, tmp_path / "old.th", klass), "wants to run or create", klass)
    refused(rewrite(st, klass=klass), klass, "only HTDemucs, HDemucs, Demucs can be run")
    torch.save(contents | {"klass": "HTDemucs"}, tmp_path / "text.th")
    refused(tmp_path / "text.th", "of no known class")


@pytest.mark.parametrize("suffix", [".th", ".safetensors"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 4096, b"<html>404</html>", b"PK\x03\x04", pickle.dumps({}, protocol=2)],
)
def test_files_that_are_no_checkpoint_are_refused(suffix, content, tmp_path, refused):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize(
    "change",
    [
        {"kwargs": None},
        {"state": None},
        {"kwargs": {1: 2}},
        {"args": 5},
        {"state": [1]},
        {"state": {5: torch.ones(2)}},
        {"klass": "demucs.htdemucs.HTDemucs"},
        {"klass": None},
    ],
)
def test_other_torch_files_are_refused(change, contents, tmp_path, refused):
    path = save_th(contents | change, tmp_path / "other.th")
    refused(path)
    torch.save([1, 2], path)
    refused(path, "lacks klass")


@pytest.mark.parametrize(
    "metadata",
    [
        {"kwargs": None},
        {"klass": None},
        {"kwargs": "[]"},
        {"kwargs": "{"},
        {"kwargs": "[" * 100_000},
        {"kwargs": '{"channels": ' + "9" * 5000 + "}"},
        {"args": "{}"},
        {"args": '["one\\ntwo", {"a": [[]]}]'},
        {"klass": "os.system\nand more"},
    ],
)
def test_other_metadata_are_refused(metadata, st, refused):
    refused(rewrite(st, **metadata))


@pytest.mark.parametrize("kind", ["th", "st"])
def test_truncated_files_are_refused(kind, request, tmp_path, refused):
    whole = request.getfixturevalue(kind).read_bytes()
    path = tmp_path / f"cut.{'th' if kind == 'th' else 'safetensors'}"
    ends = {*range(0, len(whole), len(whole) // 40), *range(len(whole) - 20, len(whole))}
    for end in ends:
        path.write_bytes(whole[:end])
        refused(path)


def test_a_missing_file_is_named(tmp_path):
    for suffix in (".th", ".safetensors"):
        with pytest.raises(CheckpointError, match=r"cannot read .*: No such file"):
            demucs_format.read(tmp_path / f"no{suffix}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("channels", 1 << 16),
        ("bottom_channels", 1 << 16),
        ("t_layers", 1 << 20),
        ("dconv_depth", 1 << 20),
        ("dconv_comp", 1e-300),
        ("t_hidden_scale", 1 << 20),
        ("nfft", 1 << 20),
        ("sources", [str(i) for i in range(1000)]),
    ],
)
def test_a_network_too_large_for_its_file_is_refused(name, value, model, st, refused):
    """No memory is allocated for it."""
    kwargs = keywords(model.config) | {name: value}
    refused(rewrite(st, kwargs=as_json(kwargs)), "too few")


def test_parameters_beyond_float16_are_not_written(model, tmp_path):
    large = HTDemucs(model.config)
    with torch.no_grad():
        large.spectral_encoder[0].conv.bias.fill_(1e5)
    with pytest.raises(CheckpointError, match="float16"):
        demucs_format.write(large, tmp_path / "large.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_is_reported(model, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="cannot write"):
        demucs_format.write(model, tmp_path / "file" / "model.safetensors")


def test_write_replaces_the_file_and_adds_no_other(model, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_text("something else")
    demucs_format.write(model, path)
    assert load_file(path).keys() == published_state(model).keys()
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
