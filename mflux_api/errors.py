"""Every failure once: a stable code, the HTTP status a dialect answers with, a message fit for a client."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar


class MfluxError(Exception):
    """Base of every error this package raises on purpose.

    `message` says what is wrong and what to do; `details` are facts a program may read.
    """

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


def from_code(code: str, message: str, details: Mapping[str, object]) -> MfluxError:
    """The error of this code again, on the other side of a process boundary."""
    kinds = {kind.code: kind for kind in _descendants(MfluxError)}
    return kinds.get(code, MfluxError)(message, **details)


def without_folders(error: MfluxError, folders: Iterable[Path]) -> MfluxError:
    """The same error for a stranger's eyes: files keep their names, and where they lie is left out."""
    places = sorted({f"{folder}/" for folder in folders}, key=len, reverse=True)

    def shortened(value: object) -> object:
        if not isinstance(value, str):
            return value
        for place in places:
            value = value.replace(place, "")
        return value

    details = {name: shortened(value) for name, value in error.details.items()}
    return type(error)(str(shortened(error.message)), **details)


def kinds() -> list[type[MfluxError]]:
    """Every error there is, the dialects' own included."""
    return [MfluxError, *_descendants(MfluxError)]


def _descendants(kind: type[MfluxError]) -> Iterator[type[MfluxError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _descendants(child)


# What was asked


class InvalidRequest(MfluxError):
    """A field of the request is out of range, of the wrong type, or contradicts another."""

    code, status = "INVALID_REQUEST", 400


class InvalidImage(InvalidRequest):
    """A source, mask or reference picture cannot be read or is too small to use."""

    code, status = "INVALID_IMAGE", 400


class FetchFailed(InvalidImage):
    """What a client named by its address could not be had from there."""

    code, status = "FETCH_FAILED", 400


class AddressForbidden(InvalidRequest):
    """A client named an address inside this machine or its network."""

    code, status = "ADDRESS_FORBIDDEN", 400


class LinkExpired(MfluxError):
    """A signed address is too old, or was not made by this server."""

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
    """Somebody cancelled the job that was waited for."""

    code, status = "CANCELLED", 409


class QueueFull(MfluxError):
    """As many jobs wait as may wait."""

    code, status = "QUEUE_FULL", 503


class Busy(MfluxError):
    """A picture is being painted, and this API takes one at a time."""

    code, status = "BUSY", 503


class ShuttingDown(MfluxError):
    """The server is stopping and takes no more jobs."""

    code, status = "SHUTTING_DOWN", 503


class StorageFailed(MfluxError):
    """The job database or a picture could not be written: the disk is full or broken."""

    code, status = "DISK_FULL", 507


# The engine process


class GenerationFailed(MfluxError):
    """The engine met an error that is not the request's fault. The log has it."""

    code, status = "GENERATION_FAILED", 500


class EngineDied(MfluxError):
    """The engine process ended while it was working."""

    code, status = "ENGINE_DIED", 500


class EngineStuck(EngineDied):
    """The engine process said nothing for too long and was ended."""

    code, status = "ENGINE_TIMEOUT", 500


# HTTP


class NoSuchRoute(MfluxError):
    """There is nothing at this path."""

    code, status = "NOT_FOUND", 404


class MethodNotAllowed(MfluxError):
    """The path exists, with another method."""

    code, status = "METHOD_NOT_ALLOWED", 405


class BodyTooLarge(MfluxError):
    """The request's body is larger than the server takes."""

    code, status = "PAYLOAD_TOO_LARGE", 413


class BodyTooSlow(MfluxError):
    """The request's body did not arrive in time."""

    code, status = "REQUEST_TIMEOUT", 408


class UnsupportedMedia(MfluxError):
    """The body is of a kind that this endpoint does not read."""

    code, status = "UNSUPPORTED_MEDIA_TYPE", 415


class Unauthorized(MfluxError):
    """An API key is needed, or the one given is not known."""

    code, status = "UNAUTHORIZED", 401


class HostRefused(MfluxError):
    """The Host header names a host that this server does not answer for."""

    code, status = "HOST_REFUSED", 403


class OriginRefused(MfluxError):
    """A web page of an origin that may not use this server asked for a change."""

    code, status = "ORIGIN_REFUSED", 403


class RateLimited(MfluxError):
    """Too many requests from this key or address."""

    code, status = "RATE_LIMITED", 429


# Models


class ModelNotFound(MfluxError):
    """No model has this name, or there is nothing at this path."""

    code, status = "MODEL_NOT_FOUND", 404


class ModelNotDownloaded(MfluxError):
    """The registry knows the model, but its files are not on this machine."""

    code, status = "MODEL_NOT_DOWNLOADED", 404


class ModelIncomplete(MfluxError):
    """The folder is a FLUX.2 checkpoint with files missing."""

    code, status = "MODEL_INCOMPLETE", 500


class ModelCorrupt(MfluxError):
    """A file of the checkpoint is truncated or not what it says it is."""

    code, status = "MODEL_CORRUPT", 500


class ModelUnsupported(MfluxError):
    """The folder holds something else than a FLUX.2 klein checkpoint."""

    code, status = "MODEL_UNSUPPORTED", 400


class OutOfMemory(MfluxError):
    """The model or the picture does not fit in the memory budget."""

    code, status = "OOM_ERROR", 503


# LoRA


class LoraNotFound(MfluxError):
    """No such adapter in the folders that adapters may come from."""

    code, status = "LORA_NOT_FOUND", 404


class LoraInvalid(MfluxError):
    """The file is not an adapter that this model can carry."""

    code, status = "LORA_INVALID", 400


# Settings


class InvalidSetting(InvalidRequest):
    """A setting is unknown or has a value it cannot have, or the file it comes from cannot be read."""

    code, status = "INVALID_SETTING", 400


# Downloads


class DownloadFailed(MfluxError):
    """A model's files could not be fetched; the next attempt goes on where this one stopped."""

    code, status = "MODEL_DOWNLOAD_FAILED", 503


class ModelGated(MfluxError):
    """The model's licence must be accepted first, or the token proves nothing."""

    code, status = "MODEL_GATED", 403


class DiskFull(StorageFailed):
    """There is no room for the model's files."""
