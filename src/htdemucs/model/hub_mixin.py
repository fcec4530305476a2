"""What users of the hub expect of a model: `from_pretrained`, `save_pretrained`, `push_to_hub`."""

from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypedDict, Unpack

from htdemucs.errors import CheckpointError, ConfigError


class CardFields(TypedDict, total=False):
    """What a model's card says that only its maker knows.

    Attributes:
        license: the licence of the weights, such as "mit" or "cc-by-nc-4.0"; never guessed.
        training_data: a sentence or more on what the model has learnt from.
        scores: the JSON file of `htdemucs evaluate`.
    """

    license: str
    training_data: str
    scores: str | Path


class Hub(Protocol):
    """Reads and writes models. This room does neither: `htdemucs.weights` brings its own."""

    def load(self, name: str, /, **download: Any) -> object:
        """Return the model of a name, repository or folder."""

    def save(self, model: Any, folder: Path, card: CardFields, /) -> None:
        """Write a model and its card to a folder."""

    def push(
        self,
        model: Any,
        repo_id: str,
        card: CardFields,
        /,
        *,
        token: str | bool | None,
        private: bool | None,
        revision: str | None,
        commit_message: str,
        create_pr: bool,
    ) -> str:
        """Write a model and its card to a repository, and return the commit's URL."""


class Pretrained:
    """Base of the models, which gives them the hub's conventions."""

    _hub: ClassVar[Hub | None] = None

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
        model = cls._weights().load(
            str(name_or_folder),
            revision=revision,
            token=token,
            cache_dir=Path(cache_dir) if cache_dir else None,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        if not isinstance(model, cls):
            kind = type(model).__name__
            raise CheckpointError(
                f"the class of {name_or_folder} is {kind}; use {kind}.from_pretrained or load_model"
            )
        return model

    def save_pretrained(self, folder: str | Path, **card: Unpack[CardFields]) -> None:
        """Write `config.json`, `model.safetensors` and a card, `README.md`, to a folder.

        A card that is there is kept, unless a field of a new one is given.

        Args:
            folder: it replaces an earlier model there.
            **card: the fields of the card (`CardFields`).

        Raises:
            CheckpointError: the folder cannot be written, the scores cannot be read, or a bag lacks
                sources of its members.
        """
        self._weights().save(self, Path(folder), card)

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

        The repository is made if there is none. A card that is there is kept, unless a field of a
        new one is given. Each card must state a licence.

        Args:
            repo_id: `namespace/name`, or `name` in one's own namespace.
            commit_message: the first line of the commit.
            private: whether a new repository is private; by default as its owner has set.
            token: for writing; by default the one that the hub's client has stored.
            revision: the branch to write to, made if there is none; by default `main`.
            create_pr: open a pull request instead.
            **card: the fields of the card (`CardFields`).

        Raises:
            UploadError: the hub is unreachable or refuses.
            CheckpointError: no licence is stated, the scores cannot be read, or a bag lacks sources
                of its members.
        """
        return self._weights().push(
            self,
            repo_id,
            card,
            commit_message=commit_message,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
        )

    @classmethod
    def _weights(cls) -> Hub:
        if cls._hub is None:
            raise ConfigError("import htdemucs.weights, which reads and writes models")
        return cls._hub
