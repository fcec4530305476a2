"""The models' `from_pretrained`, `save_pretrained` and `push_to_hub`, and the model card.

The card is `README.md` next to the weights. It is written from what is known about the network and
what the maker states, and nothing else. Downloads are in `download`.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from htdemucs.devices import choose_device
from htdemucs.errors import CheckpointError, ConfigError, DownloadError, UploadError
from htdemucs.fsutil import atomic_write
from htdemucs.model import Bag, Model
from htdemucs.model.bag import networks
from htdemucs.model.hub_mixin import CardFields
from htdemucs.results import counted
from htdemucs.version import __version__
from htdemucs.weights.build import short_repr
from htdemucs.weights.download import (
    HubOptions,
    check_hub_reachable,
    download_from_hub,
    hub_errors,
)
from htdemucs.weights.load import read_model
from htdemucs.weights.native_format import CARD_FILE, save_model, stated_license

LOG = logging.getLogger(__name__)
_REPOSITORY = re.compile(r"\w[\w.-]{,95}/\w[\w.-]{,95}")
_SUBFOLDER_PART = re.compile(r"\w[\w.-]*")
_LICENSE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # the form of the hub's names of licences

_CARD = """\
---
{metadata}---

# {title}

Separates music into {sources}. {about}

| | |
|---|---|
| network | {network} |
| parameters | {parameters:.2f} million |
| sample rate | {sample_rate} Hz |
| channels | {channels} |
| segment | {segment:g} s |

## Use

```sh
htdemucs separate -n {address} song.mp3
```

```python
from htdemucs import {class_name}, Separator

separator = Separator({class_name}.from_pretrained("{location}"))
stems = separator.separate(waveform, sample_rate)
```

## Training data

{training_data}

## Scores

{scores}

## Licence of the weights

{license}

This card was written by htdemucs {version}.
"""


# Keywords of transformers and of the hub's client -> the values that change nothing here (None: any
# value), and what to do instead of any other.
_ANY = None
_NEUTRAL: dict[str, dict[str, tuple[tuple[Any, ...] | None, str]]] = {
    "from_pretrained": {
        "low_cpu_mem_usage": (_ANY, ""),
        "resume_download": (_ANY, ""),
        "strict": (_ANY, ""),  # a file must always match its network
        "trust_remote_code": (_ANY, ""),  # no code is executed
        "weights_only": (_ANY, ""),
        "use_safetensors": ((None, True), "models on the hub are safetensors files"),
        "ignore_mismatched_sizes": ((None, False), "a file must match its network"),
        "output_loading_info": ((None, False), "a file must match its network"),
        "attn_implementation": ((None, "eager", "sdpa"), "the Separator chooses the kernels"),
        "quantization_config": ((None,), "choose the precision of the Separator"),
        "proxies": ((None,), "set the environment variable HTTPS_PROXY"),
        "use_auth_token": ((None,), "use token"),
        "variant": ((None,), "a repository has one; use revision"),
    },
    "save_pretrained": {
        "max_shard_size": (_ANY, ""),  # there is one file
        "save_peft_format": (_ANY, ""),
        "token": (_ANY, ""),
        "safe_serialization": ((None, True), "weights are saved as safetensors"),
        "push_to_hub": ((None, False), "call push_to_hub"),
        "repo_id": ((None,), "call push_to_hub"),
        "state_dict": ((None,), "load it into the model first"),
        "config": ((None,), "the model has its own"),
        "model_card_kwargs": ((None,), "state license, training_data and scores"),
        "variant": ((None,), "save it in another folder"),
    },
    "push_to_hub": {
        "max_shard_size": (_ANY, ""),
        "use_temp_dir": (_ANY, ""),
        "safe_serialization": ((None, True), "weights are saved as safetensors"),
        "branch": ((None,), "use revision"),
        "config": ((None,), "the model has its own"),
        "model_card_kwargs": ((None,), "state license, training_data and scores"),
        "tags": ((None,), "edit the card"),
        "variant": ((None,), "use revision"),
        "allow_patterns": ((None,), "exactly the model's files are uploaded"),
        "ignore_patterns": ((None,), "exactly the model's files are uploaded"),
        "delete_patterns": ((None,), "delete files on the hub's page"),
    },
}


def check_keywords(method: str, keywords: Mapping[str, Any]) -> None:
    """Check that keywords of other libraries ask for nothing that a method cannot do.

    Raises:
        ConfigError: one does; the message says what to do instead.
        TypeError: no library has such a keyword.
    """
    for name, value in keywords.items():
        if name not in _NEUTRAL[method]:
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")
        values, instead = _NEUTRAL[method][name]
        if values is not None and not any(value is one or value == one for one in values):
            raise ConfigError(f"{method} cannot do {name}={short_repr(value)}: {instead}")


def from_pretrained(
    name: str,
    options: HubOptions,
    *,
    config: Path | None,
    device_map: Any,
    dtype: Any,
    others: dict[str, Any],
) -> Model:
    """Return the model of a name, repository or folder, on its device.

    Args:
        name: the model.
        options: how to use the hub.
        config: as for `load_model`.
        device_map: the device; None is the CPU.
        dtype: only float32.
        others: the other keywords, among which `map_location` and `torch_dtype` have a meaning.
    """
    others = dict(others)
    places = [device_map, others.pop("map_location", None)]
    types = [dtype, others.pop("torch_dtype", None)]
    check_keywords("from_pretrained", others)
    device = _device(next((place for place in places if place is not None), "cpu"))
    for one in types:
        if one not in (None, "auto", "float32", torch.float32):
            raise ConfigError(
                f"the parameters are loaded in float32, not {one}; choose the precision of the "
                'computation instead: Separator(model, precision="bf16")'
            )
    local = Path(name)
    if options.subfolder:
        if not all(map(_SUBFOLDER_PART.fullmatch, options.subfolder.split("/"))):
            raise ConfigError(f"subfolder must be a path, not {short_repr(options.subfolder)}")
        if local.exists():
            name, options = str(local / options.subfolder), replace(options, subfolder="")
        elif not name.startswith("hf://") and not _REPOSITORY.fullmatch(name):
            raise ConfigError(f"{name} has no subfolders; leave out subfolder")
    if _REPOSITORY.fullmatch(name) and not Path(name).exists() and not local.exists():
        name = f"hf://{name}"
    return read_model(name, options, config=config).to(device)


def _device(place: Any) -> torch.device:
    """Return the device that a `device_map` or `map_location` means."""
    if isinstance(place, dict) and list(place) == [""]:
        place = place[""]
    if isinstance(place, int) and not isinstance(place, bool):
        place = f"cuda:{place}"
    if place == "auto":
        return choose_device(None)
    if isinstance(place, str | torch.device):
        return choose_device(place)
    raise ConfigError(f"a model is on one device, such as cuda or cpu, not on {short_repr(place)}")


def save_pretrained(model: Model, folder: Path, fields: CardFields) -> None:
    """Write a model and its card to a folder; without fields, an existing card is kept."""
    card = card_text(model, folder.resolve().name, fields, on_hub=False)
    save_model(model, folder)
    if fields or not (folder / CARD_FILE).exists():
        _write_card(card, folder)


def push_to_hub(
    model: Model,
    repo_id: str,
    fields: CardFields,
    *,
    token: str | bool | None,
    private: bool | None,
    revision: str | None,
    **commit: Any,
) -> str:
    """Write a model and its card to a repository in one commit, and return the commit's URL."""
    from huggingface_hub import HfApi

    with hub_errors(repo_id, UploadError):
        check_hub_reachable()
        api = HfApi(token=token)
        if "/" not in repo_id:
            repo_id = f"{api.whoami()['name']}/{repo_id}"
    if not fields.get("license") and (fields or not _states_license(repo_id, token, revision)):
        raise CheckpointError(f"state the licence of {repo_id}, such as mit or cc-by-nc-4.0")
    card = card_text(model, repo_id, fields, on_hub=True)
    with TemporaryDirectory() as folder:
        save_model(model, folder)
        if fields:
            _write_card(card, Path(folder))
        LOG.info("uploading to %s", repo_id)
        with hub_errors(repo_id, UploadError):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            uploaded = api.upload_folder(
                repo_id=repo_id, folder_path=folder, revision=revision, **commit
            )
    return str(uploaded.commit_url)


def _states_license(repo_id: str, token: str | bool | None, revision: str | None) -> bool:
    """Whether the card on the hub already states a licence."""
    options = HubOptions(revision=revision, token=token, force_download=True)
    try:
        path = download_from_hub(repo_id, CARD_FILE, options)
    except DownloadError:
        return False
    return bool(stated_license(path.read_text(encoding="utf-8", errors="replace")))


def _write_card(text: str, folder: Path) -> None:
    try:
        with atomic_write(folder / CARD_FILE) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot write {folder}: {error.strerror or error}") from error


def card_text(model: Model, location: str, fields: CardFields, *, on_hub: bool) -> str:
    """Return the card of a model.

    Args:
        model: the model.
        location: its folder, or its repository on the hub.
        fields: what the maker states.
        on_hub: whether the location is a repository.

    Raises:
        CheckpointError: a field has an impossible value, or the scores cannot be read.
    """
    licence: Any = fields.get("license")
    if licence is not None:
        if not isinstance(licence, str) or not licence.strip() or not licence.isprintable():
            raise CheckpointError(
                f"the license must be a name such as mit, not {short_repr(licence)}"
            )
        licence = licence.strip()
    metadata: dict[str, Any] = {}
    if licence:  # one that the hub has no name for is "other", and stands in the text
        metadata["license"] = licence if _LICENSE_ID.fullmatch(licence) else "other"
    metadata |= {"library_name": "htdemucs", "pipeline_tag": "audio-to-audio"}
    metadata["tags"] = ["music-source-separation", "htdemucs"]
    members = networks(model)
    names = [f"`{type(member).__name__}`" for member in members]
    counts = " and ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    summaries = dict.fromkeys((type(m).__doc__ or "").partition("\n")[0].strip() for m in members)
    scores = fields.get("scores")
    return _CARD.format(
        metadata=yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True),
        title=Path(location).name,
        sources=" and ".join(filter(None, (", ".join(model.sources[:-1]), model.sources[-1]))),
        about=" ".join(summaries),
        network=f"a bag of {counts}" if isinstance(model, Bag) else names[0],
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        sample_rate=model.sample_rate,
        channels=model.audio_channels,
        segment=float(model.segment),
        address=f"hf://{location}" if on_hub else location,
        class_name=type(model).__name__,
        location=location,
        training_data=fields.get("training_data", "").strip() or "Not stated.",
        scores=_scores(Path(scores)) if scores else "Not measured.",
        license=licence or "Not stated: ask its maker before you use or share it.",
        version=__version__,
    )


def _scores(path: Path) -> str:
    """Return a table of the scores in a JSON file of `htdemucs evaluate`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != "htdemucs-evaluation":
            raise ValueError
        return _score_table(document)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a JSON file of htdemucs evaluate") from error


def _score_table(document: dict[str, Any]) -> str:
    stems = [*document["stems"], "all"]
    data, options = document["data"], document["options"]
    rows = [
        ("nsdr, mean over tracks", document["mean"], "nsdr"),
        ("nsdr of the mixture itself, mean", document["mixture"], "nsdr"),
        ("SDR (museval), median over tracks", document["median"], "museval_sdr"),
    ]
    lines = [f"| dB | {' | '.join(stems)} |", "|---" * (len(stems) + 1) + "|"]
    for label, table, metric in rows:
        if metric not in table["all"]:
            continue
        values = [table[stem][metric] for stem in stems]
        cells = ["" if value is None else f"{value:.2f}" for value in values]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    tracks = counted(data["tracks"], "track")
    about = (
        f"{tracks} ({data['duration'] / 60:.1f} min) of `{Path(data['path']).name}`, "
        f"measured by `htdemucs evaluate` {document['versions']['htdemucs']}; "
        f"shifts {options['shifts']}, overlap {options['overlap']:g}."
    )
    return "\n".join([about, "", *lines])
