"""Every public name of the published modules exists here, or is absent for a stated reason."""

import importlib
import pkgutil
from types import ModuleType

import demucs
import pytest
from torch.nn import Module

TRAINING = "for training"
INNER = "an inner part of networks"
DOWNLOADS = "where and how the published package downloads"
WRITING = "an inner part of save_audio"
ABSENT_MODULES = {
    "augment": TRAINING,
    "distrib": TRAINING,
    "ema": TRAINING,
    "evaluate": TRAINING,
    "grids": TRAINING,
    "repitch": TRAINING,
    "solver": TRAINING,
    "spec": INNER,
    "svd": TRAINING,
    "train": TRAINING,
    "transformer": INNER,
    "wav": TRAINING,
    "wdemucs": "a name of 2021 for HDemucs",
    "wiener": INNER,
}


def absent(reason, names):
    return dict.fromkeys(names.split(), reason)


ABSENT_NAMES = {
    "api": {"NotProvided": "a default value", "RemoteRepo": DOWNLOADS},
    "audio": absent(WRITING, "as_dtype_pcm encode_ffmpeg encode_mp3 encode_wav f32_pcm i16_pcm")
    | {"temp_filenames": "in demucs.utils"},
    "demucs": absent(
        INNER, "BLSTM DConv LayerScale LocalState capture_init rescale_conv rescale_module"
    ),
    "hdemucs": absent(
        INNER,
        "DConv HDecLayer HEncLayer MultiWrap ScaledEmbedding capture_init ispectro pad1d "
        "rescale_module spectro wiener",
    ),
    "htdemucs": absent(
        INNER,
        "CrossTransformerEncoder HDecLayer HEncLayer MultiWrap ScaledEmbedding capture_init "
        "ispectro pad1d rescale_module spectro wiener",
    ),
    "pretrained": absent(DOWNLOADS, "ROOT_URL RemoteRepo") | {"get_model_from_sig": TRAINING},
    "repo": {"RemoteRepo": DOWNLOADS, "load_model": "in demucs.states"},
    "states": absent(
        TRAINING,
        "capture_init copy_state get_quantizer get_state save_with_checksum serialize_model "
        "set_state swap_state",
    )
    | {"fatal": "in demucs.utils"},
    "utils": absent(TRAINING, "EMA pull_metric random_subset"),
}
ABSENT_ATTRIBUTES = {
    "AudioFile": {"info": "what ffprobe prints"},
    "BagOnlyRepo": {"scan": "the folder is read at each call"},
    "LocalRepo": {"scan": "the folder is read at each call"},
    "DummyPoolExecutor": {"DummyResult": "an inner part"},
}
PRESENT = sorted(
    {module.name for module in pkgutil.iter_modules(demucs.__path__)} - set(ABSENT_MODULES)
)


def public_names(module):
    """Return the names of a module that are not modules or objects of other packages."""
    names = set()
    for name in dir(module):
        value = getattr(module, name)
        owner = getattr(value, "__module__", None) or "demucs"
        if name[0] != "_" and not isinstance(value, ModuleType):
            names |= {name} if owner.partition(".")[0] in ("demucs", "htdemucs") else set()
            names |= {name} if owner == "typing" and name in ("Model", "AnyModel") else set()
    return names


@pytest.mark.parametrize("name", PRESENT)
def test_every_name_exists_or_is_absent_for_a_reason(name):
    theirs = public_names(importlib.import_module(f"demucs.{name}"))
    ours = set(dir(importlib.import_module(f"htdemucs.compat.demucs.{name}")))
    absent = ABSENT_NAMES.get(name, {})
    assert theirs - ours == set(absent)


@pytest.mark.parametrize("name", PRESENT)
def test_a_star_imports_all_names_that_exist(name):
    theirs = public_names(importlib.import_module(f"demucs.{name}"))
    ours = importlib.import_module(f"htdemucs.compat.demucs.{name}")
    starred = set(getattr(ours, "__all__", public_names(ours)))
    assert theirs - starred <= set(ABSENT_NAMES.get(name, {}))


@pytest.mark.parametrize("name", PRESENT)
def test_every_attribute_of_a_class_exists_or_is_absent_for_a_reason(name):
    theirs = importlib.import_module(f"demucs.{name}")
    ours = importlib.import_module(f"htdemucs.compat.demucs.{name}")
    for kind in public_names(theirs) & public_names(ours):
        if isinstance(getattr(theirs, kind), type):
            attributes = {name for name in dir(getattr(theirs, kind)) if name[0] != "_"}
            absent = attributes - set(dir(getattr(ours, kind))) - set(dir(Module))
            assert absent <= set(ABSENT_ATTRIBUTES.get(kind, {})), kind


def test_no_module_is_listed_that_exists():
    ours = importlib.import_module("htdemucs.compat.demucs")
    assert not {m.name for m in pkgutil.iter_modules(ours.__path__)} & set(ABSENT_MODULES)
