"""The models' `from_pretrained`, `save_pretrained` and `push_to_hub`: hub and folders alike."""

import logging
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from htdemucs.errors import CheckpointError, DownloadError, UploadError
from htdemucs.files import replacing
from htdemucs.model import Model
from htdemucs.model.pretrained import CardFields
from htdemucs.weights import card, downloads, folder, loading

LOG = logging.getLogger(__name__)
_REPOSITORY = re.compile(r"\w[\w.-]{,95}/\w[\w.-]{,95}")


def load(name: str, /, **download: Any) -> Model:
    """Return the model of a name, repository or folder, on the CPU."""
    if _REPOSITORY.fullmatch(name) and not Path(name).exists():
        name = f"hf://{name}"
    return loading.read_model(name, downloads.Access(**download))


def save(model: Model, path: Path, fields: CardFields) -> None:
    """Write a model and its card to a folder; without fields, a card that is there is kept."""
    text = card.text(model, path.resolve().name, fields, on_hub=False)
    folder.save_model(model, path)
    if fields or not (path / card.CARD_FILE).exists():
        _write_card(text, path)


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

    with downloads.hub_client(repo_id, UploadError):
        api = HfApi(token=token)
        if "/" not in repo_id:
            repo_id = f"{api.whoami()['name']}/{repo_id}"
    if not fields.get("license") and (fields or not _states_license(repo_id, token, revision)):
        raise CheckpointError(f"state the licence of {repo_id}, such as mit or cc-by-nc-4.0")
    text = card.text(model, repo_id, fields, on_hub=True)
    with TemporaryDirectory() as files:
        folder.save_model(model, files)
        if fields:
            _write_card(text, Path(files))
        LOG.info("uploading to %s", repo_id)
        with downloads.hub_client(repo_id, UploadError):
            api.create_repo(repo_id, private=private, exist_ok=True)
            if revision:
                api.create_branch(repo_id, branch=revision, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo_id, folder_path=files, revision=revision, **commit
            )
    return str(done.commit_url)


def _states_license(repo_id: str, token: str | bool | None, revision: str | None) -> bool:
    """Whether the card that is on the hub already states a licence."""
    access = downloads.Access(revision=revision, token=token, force_download=True)
    try:
        path = downloads.from_hub(repo_id, card.CARD_FILE, access)
    except DownloadError:
        return False
    return bool(card.stated_license(path.read_text(encoding="utf-8", errors="replace")))


def _write_card(text: str, path: Path) -> None:
    try:
        with replacing(path / card.CARD_FILE) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
