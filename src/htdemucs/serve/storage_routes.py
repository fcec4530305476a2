"""Routes for storage: the stems' format, the use of the disk, and freeing previews."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from htdemucs.formats import LOSSLESS
from htdemucs.serve.app_state import AppState, StateDep
from htdemucs.serve.tracks import Document

router = APIRouter(prefix="/api/storage", tags=["storage"])


class Change(BaseModel, extra="forbid"):
    """A change of the settings."""

    format: str = Field(max_length=10)


@router.get("")
def storage(state: StateDep) -> Document:
    """Return the `format` of new stems, and the use of the disk.

    `formats` lists what it can be; it cannot be changed if it is `fixed` by `serve --format`.
    `bytes` has the sizes of `library`, `uploads` and `previews`, and what is `free` on their disk.
    """
    return _document(state)


@router.patch("")
def change_storage(state: StateDep, change: Change) -> Document:
    """Set the format of stems that are written from now on. The body is `{"format": "flac"}`.

    The server stores it. The response is that of `GET /api/storage`.
    """
    state.storage.set_stem_format(change.format)
    return _document(state)


@router.delete("/previews")
def free_previews(state: StateDep) -> Document:
    """Delete the previews of all tracks that are not being separated.

    Each is built again from the stems when a client plays the track. The response is that of
    `GET /api/storage`.
    """
    state.preview_builder.evict(limit=0)
    return _document(state)


def _document(state: AppState) -> Document:
    return {
        "format": state.storage.stem_format(),
        "formats": list(LOSSLESS),
        "fixed": state.storage.is_fixed,
        "bytes": state.storage.usage(),
    }
