"""The hub's usual methods of a model: `from_pretrained`, `save_pretrained`, `push_to_hub`.

The work is done in `htdemucs.weights.hub`, one layer up, which each method imports when it is
called.
"""

from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

from htdemucs.errors import CheckpointError


class CardFields(TypedDict, total=False):
    """The fields of a model card that only the model's maker knows.

    Attributes:
        license: the licence of the weights, such as "mit" or "cc-by-nc-4.0"; never guessed.
        training_data: a sentence or more on what the model was trained with.
        scores: the JSON file of `htdemucs evaluate`.
    """

    license: str
    training_data: str
    scores: str | Path


class Pretrained:
    """Base of the models, which gives them the hub's usual methods."""

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """Return a model in evaluation mode, on the CPU. Nothing in a file is ever executed.

        Args:
            name_or_folder: a folder, a repository `namespace/name` of the hub, or anything that
                `load_model` takes.
            revision: a branch, tag or commit of the repository.
            token: for private repositories; by default the one that the hub's client has stored.
            cache_dir: the folder for downloads; by default the usual caches.
            force_download: download even what is in the cache.
            local_files_only: download nothing.

        Raises:
            ModelNotFoundError: nothing has that name.
            DownloadError: the model is not on this machine and cannot be downloaded.
            CheckpointError: a file is damaged or unsafe, or its model is of another class.
        """
        from htdemucs.weights import hub

        model: Any = hub.from_pretrained(
            str(name_or_folder),
            hub.HubOptions(
                revision=revision,
                token=token,
                cache_dir=Path(cache_dir) if cache_dir else None,
                force_download=force_download,
                local_files_only=local_files_only,
            ),
        )
        if not isinstance(model, cls):
            name = type(model).__name__
            raise CheckpointError(
                f"the class of {name_or_folder} is {name}; use {name}.from_pretrained or load_model"
            )
        return model

    def save_pretrained(self, folder: str | Path, **card: Unpack[CardFields]) -> None:
        """Write `config.json`, `model.safetensors` and a card, `README.md`, to a folder.

        An existing card is kept, unless a field of a new one is given.

        Args:
            folder: it replaces an earlier model there.
            **card: the fields of the card (`CardFields`).

        Raises:
            CheckpointError: the folder cannot be written, the scores cannot be read, or a bag lacks
                sources of its members.
        """
        from htdemucs.weights import hub

        model: Any = self  # a network or a bag
        hub.save_pretrained(model, Path(folder), card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload model",
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        **card: Unpack[CardFields],
    ) -> str:
        """Upload what `save_pretrained` writes in one commit, and return the commit's URL.

        A missing repository is created. An existing card is kept, unless a field of a new one is
        given. Each card must state a licence.

        Args:
            repo_id: `namespace/name`, or `name` in the user's own namespace.
            commit_message: the first line of the commit.
            private: whether a new repository is private; by default the owner's setting.
            token: for writing; by default the one that the hub's client has stored.
            revision: the branch to write to, created if it is missing; by default `main`.
            create_pr: open a pull request instead.
            **card: the fields of the card (`CardFields`).

        Raises:
            UploadError: the hub is unreachable or refuses.
            CheckpointError: no licence is stated, the scores cannot be read, or a bag lacks sources
                of its members.
        """
        from htdemucs.weights import hub

        model: Any = self  # a network or a bag
        return hub.push_to_hub(
            model,
            repo_id,
            card,
            commit_message=commit_message,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
        )
