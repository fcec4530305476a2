"""`demucs.repo`: models by name or signature, from a folder or from the official ones."""

from pathlib import Path

from htdemucs.compat.networks import BagOfModels, PublishedModel, PublishedNetwork, to_published
from htdemucs.errors import HTDemucsError
from htdemucs.weights import load_model


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
        model = load_model(name, repo=repo, device="cpu")
    except HTDemucsError as error:
        raise ModelLoadingError(str(error)) from error
    published = to_published(model)
    files = model.origin.files if model.origin else ()
    if isinstance(published, PublishedNetwork) and not files[0].name.startswith(Path(name).stem):
        return BagOfModels([published]).eval()
    return published.eval()


class _FolderRepo:
    """Models in a folder: files with one of `suffixes`."""

    suffixes: tuple[str, ...] = ()

    def __init__(self, root: str | Path, model_repo: "_FolderRepo | None" = None) -> None:
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


class LocalRepo(_FolderRepo):
    """Networks by their signatures."""

    suffixes = (".th", ".safetensors")


class BagOnlyRepo(_FolderRepo):
    """Bags by their names."""

    suffixes = (".yaml",)


class AnyModelRepo(_FolderRepo):
    """Networks and bags."""

    suffixes = LocalRepo.suffixes + BagOnlyRepo.suffixes

    def __init__(self, model_repo: LocalRepo, bag_repo: BagOnlyRepo) -> None:
        super().__init__(bag_repo.root, model_repo)
