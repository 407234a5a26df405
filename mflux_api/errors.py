"""Every failure once: a stable code, the HTTP status a dialect answers with, a message fit for a client."""

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


# What was asked


class InvalidRequest(MfluxError):
    """A field of the request is out of range, of the wrong type, or contradicts another."""

    code, status = "INVALID_REQUEST", 400


class InvalidImage(InvalidRequest):
    """A source, mask or reference picture cannot be read or is too small to use."""

    code, status = "INVALID_IMAGE", 400


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
