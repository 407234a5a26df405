"""A file that holds a random secret: written whole, readable by its owner only, and checked when it is read."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from mflux_api.errors import StorageFailed
from mflux_api.logs import log_warning

SECRET_BYTES = 32
NEW, OWNER_ONLY = os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600
OTHERS = 0o077


def load_secret(file: Path) -> bytes:
    """Return the secret of a file, SECRET_BYTES long. A missing or damaged file is replaced by a new secret.

    What was signed with a damaged secret is no longer valid, because anybody could have guessed the secret. Raises
    StorageFailed when the file cannot be read or written.
    """
    try:
        found = _read_secret(file)
        return _write_secret(file) if found is None else found
    except OSError as error:
        raise StorageFailed("The secret for signed links cannot be stored: is the disk full?") from error


def _read_secret(file: Path) -> bytes | None:
    """Return the secret; None without one that can be used."""
    with suppress(FileNotFoundError):
        found = file.read_bytes()
        if len(found) != SECRET_BYTES:
            log_warning("secret.damaged", file=str(file), bytes=len(found), action="replaced; old links are not valid")
        elif file.stat().st_mode & OTHERS:
            log_warning("secret.readable", file=str(file), action="made private; delete it to replace the secret")
            file.chmod(OWNER_ONLY)
            return found
        else:
            return found
    return None


def _write_secret(file: Path) -> bytes:
    """Write a new secret to a temporary file that then takes the file's place. A full disk leaves the old file."""
    secret = secrets.token_bytes(SECRET_BYTES)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)
        with os.fdopen(os.open(part, NEW, OWNER_ONLY), "wb") as stream:
            stream.write(secret)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return secret
