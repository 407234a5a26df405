"""All errors, each with a stable code, an HTTP status and a message for the client."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar


class MfluxError(Exception):
    """Base of the errors that this package raises.

    `message`: what is wrong and what to do. `details`: facts for programs.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


def from_code(code: str, message: str, details: Mapping[str, object]) -> MfluxError:
    """Rebuild an error from its code, after it was sent between processes."""
    kinds = {kind.code: kind for kind in _iter_subclasses(MfluxError)}
    return kinds.get(code, MfluxError)(message, **details)


def strip_folders(error: MfluxError, folders: Iterable[Path]) -> MfluxError:
    """Copy an error and strip the local folders from its texts. File names are kept."""
    places = sorted({f"{folder}/" for folder in folders}, key=len, reverse=True)

    def strip_text(value: object) -> object:
        if not isinstance(value, str):
            return value
        for place in places:
            value = value.replace(place, "")
        return value

    details = {name: strip_text(value) for name, value in error.details.items()}
    return type(error)(str(strip_text(error.message)), **details)


def list_error_types() -> list[type[MfluxError]]:
    """Return all error classes, including those of the dialects."""
    return [MfluxError, *_iter_subclasses(MfluxError)]


def _iter_subclasses(kind: type[MfluxError]) -> Iterator[type[MfluxError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _iter_subclasses(child)


# Requests


class InvalidRequest(MfluxError):
    """A field of the request is out of range, of the wrong type, or contradicts another."""

    code, status = "INVALID_REQUEST", 400


class InvalidImage(InvalidRequest):
    """A source, mask or reference picture cannot be read or is too small to use."""

    code, status = "INVALID_IMAGE", 400


class FetchFailed(InvalidImage):
    """A URL in the request could not be fetched."""

    code, status = "FETCH_FAILED", 400


class AddressForbidden(InvalidRequest):
    """A URL in the request points into this machine or its network."""

    code, status = "ADDRESS_FORBIDDEN", 400


class LinkExpired(MfluxError):
    """A signed URL has expired, or was not made by this server."""

    code, status = "LINK_EXPIRED", 403


# Jobs


class JobNotFound(MfluxError):
    """No job has this id; finished ones are deleted after a while."""

    code, status = "JOB_NOT_FOUND", 404


class PictureNotFound(MfluxError):
    """The job has no picture of this number, or its file was deleted."""

    code, status = "PICTURE_NOT_FOUND", 404


class JobConflict(MfluxError):
    """The job's state, or an earlier request with the same Idempotency-Key, forbids this."""

    code, status = "CONFLICT", 409


class JobCancelled(MfluxError):
    """The awaited job was cancelled."""

    code, status = "CANCELLED", 409


class QueueFull(MfluxError):
    """The queue has reached its limit of waiting jobs."""

    code, status = "QUEUE_FULL", 503


class Busy(MfluxError):
    """A picture is being painted, and this API accepts one at a time."""

    code, status = "BUSY", 503


class ShuttingDown(MfluxError):
    """The server is stopping and accepts no more jobs."""

    code, status = "SHUTTING_DOWN", 503


class StorageFailed(MfluxError):
    """The job database or a picture could not be written: the disk is full or broken."""

    code, status = "DISK_FULL", 507


class UploadNotFound(MfluxError):
    """No uploaded file has this id: it was deleted or has expired."""

    code, status = "FILE_NOT_FOUND", 404


class UploadsFull(StorageFailed):
    """The files that clients uploaded take all the room that the settings give them."""

    code, status = "UPLOADS_FULL", 507


# The engine process


class GenerationFailed(MfluxError):
    """The engine failed for a reason other than the request. The log has the details."""

    code, status = "GENERATION_FAILED", 500


class EngineDied(MfluxError):
    """The engine process exited while it was working."""

    code, status = "ENGINE_DIED", 500


class EngineStuck(EngineDied):
    """The engine process reported nothing for too long and was killed."""

    code, status = "ENGINE_TIMEOUT", 500


# HTTP


class NoSuchRoute(MfluxError):
    """There is nothing at this path."""

    code, status = "NOT_FOUND", 404


class MethodNotAllowed(MfluxError):
    """The path does not support this method."""

    code, status = "METHOD_NOT_ALLOWED", 405


class BodyTooLarge(MfluxError):
    """The request body exceeds the limit."""

    code, status = "PAYLOAD_TOO_LARGE", 413


class BodyTooSlow(MfluxError):
    """Nothing of the request body arrived for too long."""

    code, status = "REQUEST_TIMEOUT", 408


class UnsupportedMedia(MfluxError):
    """The endpoint does not accept this Content-Type."""

    code, status = "UNSUPPORTED_MEDIA_TYPE", 415


class Unauthorized(MfluxError):
    """The API key is missing or unknown."""

    code, status = "UNAUTHORIZED", 401


class HostRefused(MfluxError):
    """The Host header is not in the list of allowed hosts."""

    code, status = "HOST_REFUSED", 403


class OriginRefused(MfluxError):
    """A web page of an origin that is not allowed sent a state-changing request."""

    code, status = "ORIGIN_REFUSED", 403


class RateLimited(MfluxError):
    """Too many requests from this key or address."""

    code, status = "RATE_LIMITED", 429


# Models


class ModelNotFound(MfluxError):
    """No model has this name, or the path does not exist."""

    code, status = "MODEL_NOT_FOUND", 404


class ModelNotDownloaded(MfluxError):
    """The model is in the registry, but its files are not on this machine."""

    code, status = "MODEL_NOT_DOWNLOADED", 404


class ModelIncomplete(MfluxError):
    """The folder is a FLUX.2 checkpoint with files missing."""

    code, status = "MODEL_INCOMPLETE", 500


class ModelCorrupt(MfluxError):
    """A file of the checkpoint is truncated or malformed."""

    code, status = "MODEL_CORRUPT", 500


class ModelUnsupported(MfluxError):
    """This server does not support the model, the files in its folder, or this use of it."""

    code, status = "MODEL_UNSUPPORTED", 400


class OutOfMemory(MfluxError):
    """The model or the picture does not fit in the memory budget."""

    code, status = "OOM_ERROR", 503


# LoRA


class LoraNotFound(MfluxError):
    """The allowed folders have no such adapter."""

    code, status = "LORA_NOT_FOUND", 404


class LoraInvalid(MfluxError):
    """The file is not an adapter, or does not fit this model."""

    code, status = "LORA_INVALID", 400


# Settings


class InvalidSetting(InvalidRequest):
    """A setting is unknown or has an invalid value, or its file cannot be read."""

    code, status = "INVALID_SETTING", 400


# Downloads


class DownloadFailed(MfluxError):
    """A model's files could not be downloaded. The next attempt resumes where this one stopped."""

    code, status = "MODEL_DOWNLOAD_FAILED", 503


class ModelGated(MfluxError):
    """The model's licence must be accepted first, or the Hugging Face token is missing or invalid."""

    code, status = "MODEL_GATED", 403


class DiskFull(StorageFailed):
    """The disk has no room for the model's files."""
