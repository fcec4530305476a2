"""`demucs.repo`: models by name or signature, from a folder or from the official ones."""

from pathlib import Path

from htdemucs.compat.networks import (
    BagOfModels,
    Demucs,
    HDemucs,
    HTDemucs,
    PublishedModel,
    PublishedNetwork,
    to_published,
)
from htdemucs.environment import sha256
from htdemucs.errors import HTDemucsError
from htdemucs.weights import load_model as load_own_model

__all__ = [
    "AnyModel",
    "AnyModelRepo",
    "BagOfModels",
    "BagOnlyRepo",
    "LoadModelError",
    "LocalRepo",
    "Model",
    "ModelLoadingError",
    "ModelOnlyRepo",
    "check_checksum",
]

Model = Demucs | HDemucs | HTDemucs
AnyModel = Model | BagOfModels


class LoadModelError(HTDemucsError):
    """A model cannot be loaded."""


class ModelLoadingError(LoadModelError, RuntimeError):
    """A model cannot be loaded."""


def load(name: str, repo: str | Path | None = None) -> PublishedModel:
    """Return a network for a signature and a bag for any other name, on the CPU.

    Raises:
        ModelLoadingError: nothing has that name, or it cannot be downloaded or read.
    """
    try:
        model = load_own_model(name, repo=repo, device="cpu")
    except HTDemucsError as error:
        raise ModelLoadingError(str(error)) from error
    published = to_published(model)
    files = model.origin.files if model.origin else ()
    if isinstance(published, PublishedNetwork) and not files[0].name.startswith(Path(name).stem):
        return BagOfModels([published]).eval()
    return published.eval()


def check_checksum(path: Path, checksum: str) -> None:
    """Check the beginning of a file's SHA-256.

    Raises:
        ModelLoadingError: it differs.
    """
    if not sha256(path).startswith(checksum):
        raise ModelLoadingError(f"{path} is damaged: its checksum differs; copy it there again")


class ModelOnlyRepo:
    """Models in a folder: files with one of `suffixes`."""

    suffixes: tuple[str, ...] = ()

    def __init__(self, root: str | Path, model_repo: "ModelOnlyRepo | None" = None) -> None:
        self.root = Path(root)
        self.model_repo = model_repo

    def list_model(self) -> dict[str, str | Path]:
        """Return each model's file by its name."""
        files = [path for path in sorted(self.root.iterdir()) if path.suffix in self.suffixes]
        return {path.stem.rpartition("-")[0] or path.stem: path for path in files}

    def has_model(self, name: str) -> bool:
        """Whether there is a model of this name."""
        return name in self.list_model()

    def get_model(self, name: str) -> PublishedModel:
        """Load a model."""
        return load(name, self.root)


class LocalRepo(ModelOnlyRepo):
    """Networks by their signatures."""

    suffixes = (".th", ".safetensors")


class BagOnlyRepo(ModelOnlyRepo):
    """Bags by their names."""

    suffixes = (".yaml",)


class AnyModelRepo(ModelOnlyRepo):
    """Networks and bags."""

    suffixes = LocalRepo.suffixes + BagOnlyRepo.suffixes

    def __init__(self, model_repo: LocalRepo, bag_repo: BagOnlyRepo) -> None:
        super().__init__(bag_repo.root, model_repo)
