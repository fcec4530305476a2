"""`demucs.hf`: models from the Hugging Face hub."""

from pathlib import Path

from htdemucs.compat.demucs.apply import BagOfModels, Model
from htdemucs.compat.demucs.repo import load
from htdemucs.compat.demucs.states import load_model
from htdemucs.compat.networks import PublishedModel
from htdemucs.weights.registry import repository_name as hf_repo_name

__all__ = [
    "DEFAULT_NAMESPACE",
    "BagOfModels",
    "Model",
    "get_hf_model",
    "hf_repo_name",
    "load_model",
    "load_safetensors_model",
]

DEFAULT_NAMESPACE = "adefossez"


def get_hf_model(name: str) -> PublishedModel:
    """Return the model of a repository `[namespace/]name`, on the CPU."""
    return load(f"hf://{name}")


def load_safetensors_model(path: str | Path) -> PublishedModel:
    """Return the network in a `.safetensors` file, on the CPU."""
    return load_model(str(path))
