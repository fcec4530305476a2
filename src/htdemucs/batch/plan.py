"""`Plan`: everything that a run of `separate` or `batch` needs, except the tracks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from htdemucs.batch.library import Library
from htdemucs.events import EventCallback
from htdemucs.model.bag import find_sources
from htdemucs.separation import Separator
from htdemucs.settings import EngineSettings
from htdemucs.stems import OutputOptions
from htdemucs.weights import load_model
from htdemucs.weights.registry import known_sources


@dataclass(frozen=True)
class Plan:
    """The settings of a run, which `batch` sends to each worker.

    Attributes:
        name, repo, config: the model, as for `load_model`.
        options: the files to write.
        stems: compute only these stems.
        settings: arguments of the `Separator`.
        out: path or URL of the output folder.
        device: the device of each worker of `batch`; by default the best that it has.
        skip_existing, scratch: as for `Library`.
    """

    name: str
    repo: Path | None
    options: OutputOptions
    stems: tuple[str, ...] | None
    settings: Mapping[str, Any]
    out: str
    config: Path | None = None
    device: str | None = None
    skip_existing: bool = True
    scratch: Path | None = None

    def checked(self) -> "Plan":
        """Return the plan with its stems as the model names them, before it is downloaded.

        Raises:
            ConfigError: the model has no such stem.
            SeparationError: a setting is impossible.
        """
        EngineSettings(**self.settings)
        sources = None if self.repo else known_sources(self.name)
        if sources is None:
            return self
        stems = self.stems and find_sources(self.stems, sources)
        two_stems = self.options.two_stems
        if two_stems:
            [two_stems] = find_sources([two_stems], sources)
        return replace(self, stems=stems, options=replace(self.options, two_stems=two_stems))

    def separator(
        self, device: str | None, on_event: EventCallback | None = None, **changes: Any
    ) -> Separator:
        """Load the model, with only the networks that the files need, and return its separator.

        Args:
            device: to run on; by default a GPU if there is one, else the CPU.
            on_event: called with the events of downloads.
            **changes: to the settings.

        Raises:
            ModelNotFoundError, DownloadError, CheckpointError: the model cannot be loaded.
            ConfigError, SeparationError: the model cannot run with these settings.
        """
        stems = self.stems or self.options.only_stem
        model = load_model(
            self.name,
            repo=self.repo,
            device=device,
            stems=stems,
            config=self.config,
            on_progress=on_event,
        )
        needed = self.stems or self.options.needed_stems(model.sources)
        return Separator(model, stems=needed, **{**self.settings, **changes})

    def library(self) -> Library:
        """Return the library that receives the stems."""
        return Library(
            self.out, self.options, skip_existing=self.skip_existing, scratch=self.scratch
        )

    def check(self, on_event: EventCallback | None = None) -> None:
        """Raise the errors that every worker would raise."""
        self.separator("cpu", on_event, precision="fp32")
