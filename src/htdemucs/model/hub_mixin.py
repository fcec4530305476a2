"""The usual methods of a model on the hub: `from_pretrained`, `save_pretrained`, `push_to_hub`.

The work is done in `htdemucs.weights.hub`, one layer up, which each method imports when it is
called.
"""

from pathlib import Path
from typing import Any, Self, TypedDict

import torch

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
    """Base of the models, which gives them the hub's usual methods.

    The methods accept the keywords of `transformers` and of the hub's own client that change
    nothing here, such as `low_cpu_mem_usage` and `safe_serialization`. A value that asks for
    something else raises `ConfigError`; an unknown keyword, `TypeError`.
    """

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        model: Any = self  # a network or a bag
        device: torch.device = next(model.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the parameters: float32 after loading."""
        model: Any = self
        dtype: torch.dtype = next(model.parameters()).dtype
        return dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        """Return the number of parameters, of all networks of a bag.

        Args:
            only_trainable: leave out those that need no gradient.
        """
        model: Any = self
        return sum(x.numel() for x in model.parameters() if x.requires_grad or not only_trainable)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        subfolder: str = "",
        config: str | Path | None = None,
        device_map: Any = None,
        dtype: Any = None,
        **others: Any,
    ) -> Self:
        """Return a model in evaluation mode. Nothing in a file is ever executed.

        Args:
            pretrained_model_name_or_path: a folder, a repository `namespace/name` of the hub, or
                anything that `load_model` takes.
            revision: a branch, tag or commit of the repository.
            token: for private repositories; by default the one that the hub's client has stored.
            cache_dir: the folder for downloads; by default the usual caches.
            force_download: download even what is in the cache.
            local_files_only: download nothing.
            subfolder: where in the folder or repository the model is.
            config: as for `load_model`.
            device_map: the device for the model; "auto" is a GPU if there is one; by default the
                CPU. `map_location` is the same.
            dtype: only float32, the default; precision is chosen by the `Separator`. `torch_dtype`
                is the same.
            **others: keywords of other libraries that change nothing here.

        Raises:
            ModelNotFoundError: nothing has that name.
            DownloadError: the model is not on this machine and cannot be downloaded.
            CheckpointError: a file is damaged or unsafe, or its model is of another class.
            ConfigError: a keyword asks for something that this package cannot do.
        """
        from htdemucs.weights import hub

        name = str(pretrained_model_name_or_path)
        model: Any = hub.from_pretrained(
            name,
            hub.HubOptions(
                revision=revision,
                token=token,
                cache_dir=Path(cache_dir) if cache_dir else None,
                force_download=force_download,
                local_files_only=local_files_only,
                subfolder=subfolder or "",
            ),
            config=Path(config) if config else None,
            device_map=device_map,
            dtype=dtype,
            others=others,
        )
        if not isinstance(model, cls):
            actual = type(model).__name__
            raise CheckpointError(
                f"the class of {name} is {actual}; use {actual}.from_pretrained or load_model"
            )
        return model

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        license: str | None = None,
        training_data: str | None = None,
        scores: str | Path | None = None,
        is_main_process: bool = True,
        **others: Any,
    ) -> None:
        """Write `config.json`, `model.safetensors` and a card, `README.md`, to a folder.

        An existing card is kept, unless a field of a new one is given.

        Args:
            save_directory: the folder; the model replaces an earlier one there.
            license: the licence of the weights, for the card.
            training_data: what the model was trained with, for the card.
            scores: the JSON file of `htdemucs evaluate`, for the card.
            is_main_process: False writes nothing: another process does.
            **others: keywords of other libraries that change nothing here.

        Raises:
            CheckpointError: the folder cannot be written, the scores cannot be read, or a bag lacks
                sources of its members.
            ConfigError: a keyword asks for something that this package cannot do.
        """
        from htdemucs.weights import hub

        model: Any = self  # a network or a bag
        hub.check_keywords("save_pretrained", others)
        if is_main_process:
            fields = _card_fields(license, training_data, scores)
            hub.save_pretrained(model, Path(save_directory), fields)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool | None = False,
        license: str | None = None,
        training_data: str | None = None,
        scores: str | Path | None = None,
        **others: Any,
    ) -> str:
        """Upload what `save_pretrained` writes in one commit, and return the commit's URL.

        A missing repository is created. An existing card is kept, unless a field of a new one is
        given. Each card must state a licence.

        Args:
            repo_id: `namespace/name`, or `name` in the user's own namespace.
            commit_message: the first line of the commit.
            commit_description: the text below it.
            private: whether a new repository is private; by default the owner's setting.
            token: for writing; by default the one that the hub's client has stored.
            revision: the branch to write to, created if it is missing; by default `main`.
            create_pr: open a pull request instead.
            license: the licence of the weights, for the card.
            training_data: what the model was trained with, for the card.
            scores: the JSON file of `htdemucs evaluate`, for the card.
            **others: keywords of other libraries that change nothing here.

        Raises:
            UploadError: the hub is unreachable or refuses.
            CheckpointError: no licence is stated, the scores cannot be read, or a bag lacks sources
                of its members.
            ConfigError: a keyword asks for something that this package cannot do.
        """
        from htdemucs.weights import hub

        model: Any = self  # a network or a bag
        hub.check_keywords("push_to_hub", others)
        return hub.push_to_hub(
            model,
            repo_id,
            _card_fields(license, training_data, scores),
            commit_message=commit_message or "Upload model",
            commit_description=commit_description,
            private=private,
            token=token,
            revision=revision,
            create_pr=bool(create_pr),
        )


def _card_fields(
    license: str | None, training_data: str | None, scores: str | Path | None
) -> CardFields:
    """Return the fields that are stated."""
    fields: Any = {"license": license, "training_data": training_data, "scores": scores}
    stated: Any = {name: value for name, value in fields.items() if value is not None}
    return stated
