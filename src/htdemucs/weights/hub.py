"""A model's card: `README.md` beside its weights, from what is known and nothing else.

MERGED: The models' `from_pretrained`, `save_pretrained` and `push_to_hub`: hub and folders alike.
"""

import json
import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from torch import nn

from htdemucs.errors import CheckpointError, DownloadError, UploadError
from htdemucs.fsutil import atomic_write
from htdemucs.model import Bag, Model
from htdemucs.model.bag import networks
from htdemucs.model.hub_mixin import CardFields
from htdemucs.version import __version__
from htdemucs.weights import native_format, registry
from htdemucs.weights.build import shown
from htdemucs.weights.load import read_model

CARD_FILE = "README.md"
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # as the hub's licences are called

_TEXT = """\
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
from htdemucs import {kind}, Separator

separator = Separator({kind}.from_pretrained("{place}"))
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


def card_text(model: Model, place: str, fields: CardFields, *, on_hub: bool) -> str:
    """Return the card of a model.

    Args:
        model: the model.
        place: its folder or its repository on the hub.
        fields: what the maker states.
        on_hub: whether the place is a repository.

    Raises:
        CheckpointError: a field is of no use, or the scores cannot be read.
    """
    if unknown := sorted(set(fields) - CardFields.__optional_keys__):
        raise TypeError(f"a card has no field {unknown[0]}")
    licence = _one_line(fields.get("license"))
    scores = fields.get("scores")
    return _TEXT.format(
        metadata=_metadata(licence),
        title=Path(place).name,
        sources=_listed(model.sources),
        about=_about(model),
        network=_network(model),
        parameters=sum(p.numel() for p in model.parameters()) / 1e6,
        sample_rate=model.sample_rate,
        channels=model.audio_channels,
        segment=float(model.segment),
        address=f"hf://{place}" if on_hub else place,
        kind=type(model).__name__,
        place=place,
        training_data=fields.get("training_data", "").strip() or "Not stated.",
        scores=_scores(Path(scores)) if scores else "Not measured.",
        license=licence or "Not stated: ask its maker before you use or share it.",
        version=__version__,
    )


def stated_license(card: str) -> str | None:
    """Return the licence in a card's metadata; None if it states none."""
    metadata = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    try:
        fields = yaml.safe_load(metadata[1]) if metadata else None
    except yaml.YAMLError:
        return None
    licence = fields.get("license") if isinstance(fields, dict) else None
    return licence if isinstance(licence, str) and licence else None


def _one_line(licence: object) -> str:
    if licence is None:
        return ""
    if not isinstance(licence, str) or not licence.strip() or not licence.isprintable():
        raise CheckpointError(f"the license must be a name such as mit, not {shown(licence)}")
    return licence.strip()


def _metadata(licence: str) -> str:
    fields: dict[str, Any] = {}
    if _IDENTIFIER.fullmatch(licence):
        fields["license"] = licence
    elif licence:
        fields["license"] = "other"  # in words, which stand in the text
    fields |= {"library_name": "htdemucs", "pipeline_tag": "audio-to-audio"}
    fields["tags"] = ["music-source-separation", "htdemucs"]
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _about(model: Model) -> str:
    """Return the first sentence of each network's own description."""
    kinds = dict.fromkeys(type(network) for network in networks(model))
    return " ".join((kind.__doc__ or "").partition("\n")[0].strip() for kind in kinds)


def _network(model: Model) -> str:
    names = [_kind(network) for network in networks(model)]
    kinds = " and ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
    return f"a bag of {kinds}" if isinstance(model, Bag) else names[0]


def _kind(network: nn.Module) -> str:
    return f"`{type(network).__name__}`"


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _scores(path: Path) -> str:
    """Return a table of what `htdemucs evaluate` measured."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != "htdemucs-evaluation":
            raise ValueError
        return _table(document)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a JSON file of htdemucs evaluate") from error


def _table(document: dict[str, Any]) -> str:
    stems = [*document["stems"], "all"]
    data, options = document["data"], document["options"]
    rows = [
        ("nsdr, mean over tracks", document["mean"], "nsdr"),
        ("nsdr of the mixture itself, mean", document["mixture"], "nsdr"),
        ("SDR (museval), median over tracks", document["median"], "museval_sdr"),
    ]
    lines = [f"| dB | {' | '.join(stems)} |", "|---" * (len(stems) + 1) + "|"]
    for label, table, metric in rows:
        values = [table[stem][metric] for stem in stems]
        cells = ["" if value is None else f"{value:.2f}" for value in values]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    about = (
        f"{data['tracks']} tracks ({data['duration'] / 60:.1f} min) of `{Path(data['path']).name}`"
        f", measured by `htdemucs evaluate` {document['versions']['htdemucs']}; "
        f"shifts {options['shifts']}, overlap {options['overlap']:g}."
    )
    return "\n".join([about, "", *lines])


LOG = logging.getLogger(__name__)
_REPOSITORY = re.compile(r"\w[\w.-]{,95}/\w[\w.-]{,95}")


def load(name: str, /, **download: Any) -> Model:
    """Return the model of a name, repository or folder, on the CPU."""
    if _REPOSITORY.fullmatch(name) and not Path(name).exists():
        name = f"hf://{name}"
    return read_model(name, registry.HubOptions(**download))


def save(model: Model, path: Path, fields: CardFields) -> None:
    """Write a model and its card to a folder; without fields, a card that is there is kept."""
    card = card_text(model, path.resolve().name, fields, on_hub=False)
    native_format.save_model(model, path)
    if fields or not (path / CARD_FILE).exists():
        _write_card(card, path)


def push(
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

    with registry.hub_client(repo_id, UploadError):
        api = HfApi(token=token)
        if "/" not in repo_id:
            repo_id = f"{api.whoami()['name']}/{repo_id}"
    if not fields.get("license") and (fields or not _states_license(repo_id, token, revision)):
        raise CheckpointError(f"state the licence of {repo_id}, such as mit or cc-by-nc-4.0")
    card = card_text(model, repo_id, fields, on_hub=True)
    with TemporaryDirectory() as files:
        native_format.save_model(model, files)
        if fields:
            _write_card(card, Path(files))
        LOG.info("uploading to %s", repo_id)
        with registry.hub_client(repo_id, UploadError):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo_id, folder_path=files, revision=revision, **commit
            )
    return str(done.commit_url)


def _states_license(repo_id: str, token: str | bool | None, revision: str | None) -> bool:
    """Whether the card that is on the hub already states a licence."""
    access = registry.HubOptions(revision=revision, token=token, force_download=True)
    try:
        path = registry.from_hub(repo_id, CARD_FILE, access)
    except DownloadError:
        return False
    return bool(stated_license(path.read_text(encoding="utf-8", errors="replace")))


def _write_card(text: str, path: Path) -> None:
    try:
        with atomic_write(path / CARD_FILE) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
