"""`demucs.api`: separate files and tensors."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from htdemucs.compat.demucs.apply import Callback, apply_model
from htdemucs.compat.demucs.audio import AudioFile, convert_audio, save_audio
from htdemucs.compat.demucs.pretrained import get_model
from htdemucs.compat.demucs.repo import BagOnlyRepo, LoadModelError, LocalRepo, ModelOnlyRepo
from htdemucs.compat.demucs.utils import fatal
from htdemucs.compat.networks import PublishedModel
from htdemucs.errors import AudioError, HTDemucsError
from htdemucs.separation import measure
from htdemucs.weights.registry import official_models

__all__ = [
    "AudioFile",
    "BagOnlyRepo",
    "LoadAudioError",
    "LoadModelError",
    "LocalRepo",
    "ModelOnlyRepo",
    "Separator",
    "apply_model",
    "convert_audio",
    "fatal",
    "get_model",
    "list_models",
    "save_audio",
]


class LoadAudioError(HTDemucsError):
    """An audio file cannot be read."""


_PARAMETERS = (
    "device",
    "shifts",
    "overlap",
    "split",
    "segment",
    "jobs",
    "progress",
    "callback",
    "callback_arg",
)


class Separator:
    """Separates files and tensors with one model.

    Args:
        model: any name or path that `htdemucs.load_model` takes.
        repo: look for the name only in this folder.
        device, shifts, overlap, split, segment, progress, callback, callback_arg: as for
            `apply_model`; the dictionary of callbacks also has `audio_length`, in samples.
        jobs: segments in a batch, on a CPU.

    Raises:
        LoadModelError: nothing has that name, or it cannot be downloaded or read.
    """

    _model: PublishedModel  # subclasses set it, and update the parameters

    def __init__(
        self,
        model: str = "htdemucs",
        repo: str | Path | None = None,
        device: str | torch.device | None = None,
        shifts: int = 1,
        overlap: float = 0.25,
        split: bool = True,
        segment: float | None = None,
        jobs: int = 0,
        progress: bool = False,
        callback: Callback | None = None,
        callback_arg: dict[str, Any] | None = None,
    ) -> None:
        self._model = get_model(model, repo)
        self.update_parameter(
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            shifts=shifts,
            overlap=overlap,
            split=split,
            segment=segment,
            jobs=jobs,
            progress=progress,
            callback=callback,
            callback_arg=callback_arg,
        )

    def update_parameter(self, **parameters: Any) -> None:
        """Change any of the constructor's parameters, except `model` and `repo`."""
        if unknown := parameters.keys() - set(_PARAMETERS):
            raise TypeError(
                f"update_parameter() got an unexpected keyword argument {unknown.pop()!r}"
            )
        for name, value in parameters.items():
            setattr(self, f"_{name}", value)

    @property
    def samplerate(self) -> int:
        """Hz of the model, and of what is returned."""
        return self._model.samplerate

    @property
    def audio_channels(self) -> int:
        """Channels of the model, and of what is returned."""
        return self._model.audio_channels

    @property
    def model(self) -> PublishedModel:
        """The network or bag."""
        return self._model

    def separate_tensor(
        self, wav: Tensor, sr: int | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(C, L) -> the same at the model's rate, and the stems by their names

        Args:
            wav: the mixture.
            sr: its sample rate in Hz; by default the model's.
        """
        if sr is not None and sr != self.samplerate:
            wav = convert_audio(wav, sr, self.samplerate, self.audio_channels)
        normalization = measure([wav])
        parameters: dict[str, Any] = {name: getattr(self, f"_{name}") for name in _PARAMETERS}
        items = {**(parameters.pop("callback_arg") or {}), "audio_length": wav.shape[-1]}
        workers = parameters.pop("jobs")
        mix = normalization.apply(wav)[None]
        [stems] = apply_model(
            self._model, mix, num_workers=workers, callback_arg=items, **parameters
        )
        return wav, dict(zip(self._model.sources, normalization.undo(stems), strict=True))

    def separate_audio_file(self, file: str | Path) -> tuple[Tensor, dict[str, Tensor]]:
        """Return a file's waveform (C, L) at the model's rate, and its stems by their names.

        Raises:
            LoadAudioError: the file cannot be read.
        """
        try:
            wav = AudioFile(file).read(
                streams=0, samplerate=self.samplerate, channels=self.audio_channels
            )
        except AudioError as error:
            raise LoadAudioError(str(error)) from error
        return self.separate_tensor(wav, self.samplerate)


def list_models(repo: str | Path | None = None) -> dict[str, dict[str, str | Path]]:
    """Return the models in a folder, by default the official ones: "single" and "bag", by name."""
    if repo is not None:
        model_repo = LocalRepo(repo)
        return {
            "single": model_repo.list_model(),
            "bag": BagOnlyRepo(repo, model_repo).list_model(),
        }
    models = official_models().values()
    return {
        "single": {member: f"hf://{m.repository}" for m in models for member in m.members},
        "bag": {model.name: f"hf://{model.repository}" for model in models},
    }


if __name__ == "__main__":  # the published module separates files, too
    main = import_module("htdemucs.compat.demucs.separate").main  # which imports this module

    main()
