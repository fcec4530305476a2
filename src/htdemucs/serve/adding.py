"""New jobs from what the server knows already."""

import os
import shutil
from pathlib import Path
from typing import Any

from htdemucs.errors import BadRequestError, NotFoundError
from htdemucs.serve.service import Service
from htdemucs.serve.tables import DELETED, TRACKS
from htdemucs.serve.tracks import new_id, tags
from htdemucs.serve.uploads import removed_on_error
from htdemucs.weights.overview import named_models

T = TRACKS.c


def checked_model(here: Service, name: Any) -> dict[str, Any]:
    """Return what is known of a model; without a name, of the server's own.

    Raises:
        BadRequestError: the server offers no such model. Paths are none, except the server's own.
    """
    if not isinstance(name, str | None):
        raise BadRequestError("model must be a name")
    name = name or here.settings.model
    models = {row["name"]: row for row in named_models()}
    if name in models:
        return models[name]
    if name == here.settings.model:
        return {"name": name, "sources": []}
    raise BadRequestError(f"there is no model of that name; choose from {', '.join(models)}")


def checked_stems(names: Any, model: dict[str, Any]) -> list[str] | None:
    """Return the stems that shall be made; None: all of the model's.

    Raises:
        BadRequestError: the model has no such stem.
    """
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadRequestError("stems must be a list of names")
    wanted = [name.strip() for name in names if name.strip()]
    known = model["sources"]
    if known and (unknown := [name for name in wanted if name not in known]):
        raise BadRequestError(
            f"{model['name']} has no stem {unknown[0]}; it has {', '.join(known)}"
        )
    if len(set(wanted)) != len(wanted):
        raise BadRequestError("stems must name each stem once")
    return wanted or None


def another_separation(here: Service, track: str, model: str, wanted: list[str] | None) -> str:
    """Queue a track that was only found, or a copy of another one; return its id.

    Raises:
        NotFoundError: there is no such track, or its file is gone.
    """
    row = here.tracks.row(track)
    if row["state"] == "found":
        here.jobs.queue(track, model=model, wanted=wanted)
        return track
    source = here.file(row["path"] or "")
    about = {name: row[name] for name in ("kind", "name", "title", "artist", "album")}
    copy = new_id()
    if row["kind"] == "upload":
        row["path"] = str(here.settings.uploads / copy / source.name)
    with removed_on_error(here.settings.uploads / copy):
        if row["kind"] == "upload":
            _copy(source, Path(row["path"]))
        return here.tracks.add(
            id=copy, state="queued", path=row["path"], model=model, wanted=wanted, **about
        )


def _copy(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True)
    try:
        os.link(source, path)
    except FileNotFoundError:  # deleted meanwhile
        raise NotFoundError("this file is not there any more") from None
    except OSError:  # a file system without links
        shutil.copyfile(source, path)


def from_library(here: Service, path: str, model: str, wanted: list[str] | None) -> str:
    """Queue a file below the library folder; return the track's id.

    Raises:
        NotFoundError: there is no such file there.
    """
    library = here.settings.library
    try:
        file = library / path
        real = Path(os.path.realpath(file))
        inside = real.is_relative_to(os.path.realpath(library)) and real.is_file()
    except ValueError:  # a NUL
        inside = False
    if not inside:
        raise NotFoundError("the library has no such file")
    file = Path(os.path.normpath(file))
    for row in here.tracks.all(T.path == str(file), T.state != DELETED):
        return another_separation(here, row["id"], model, wanted)
    return here.tracks.add(
        kind="library", state="queued", path=str(file), name=file.name, model=model,
        wanted=wanted, **tags(file),
    )  # fmt: skip
