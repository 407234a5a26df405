"""Files that clients upload before an order names them. They are kept until they expire or are deleted."""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mflux_api.errors import StorageFailed, UploadNotFound, UploadsFull

FILE_ID = re.compile(r"[a-z2-7]{26}")
# Ends the address of a file, /replicate/v1/files/{id}, and of its content, /files/uploads/{id}/content.
ADDRESS = re.compile(r"/files/(uploads/)?(?P<id>[a-z2-7]{26})(/content)?$")
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
# What a file takes on disk beside its content.
OVERHEAD = 65536
# Age of a content without a description: the server ended while it was uploaded.
STRAY_SECONDS = 3600
CONTENT, DESCRIPTION = "content", "file.json"


@dataclass(frozen=True, kw_only=True)
class UploadedFile:
    """The description of an uploaded file. `owner`: the name of the API key that it was uploaded with."""

    id: str
    name: str
    content_type: str
    size: int
    sha256: str
    md5: str
    metadata: Mapping[str, Any]
    owner: str
    created: float
    expires: float


class UploadedFiles:
    """The uploaded files, each in a folder of its own. All methods block: call them on a thread.

    `seconds`: how long a file is kept. `limit`: the bytes of all files together.
    """

    def __init__(self, folder: Path, seconds: float, limit: int) -> None:
        self.folder = folder
        self.seconds = seconds
        self.limit = limit
        self._lock = threading.Lock()

    def save(
        self, data: bytes, *, name: str, content_type: str, metadata: Mapping[str, Any], owner: str
    ) -> UploadedFile:
        """Store a file durably. Raises UploadsFull, StorageFailed."""
        now = time.time()
        file = UploadedFile(
            id="".join(secrets.choice(ALPHABET) for _ in range(26)),
            name=name,
            content_type=content_type,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            md5=hashlib.md5(data, usedforsecurity=False).hexdigest(),
            metadata=metadata,
            owner=owner,
            created=now,
            expires=now + self.seconds,
        )
        with self._lock:
            self.prune()
            if len(data) + OVERHEAD + sum(each.size + OVERHEAD for each in self._iter_files()) > self.limit:
                raise UploadsFull("The uploaded files take all the room that they may have. Delete some, or wait.")
            self._write(file, data)
        return file

    def get(self, file_id: str) -> UploadedFile:
        """Return the description of a file. Raises UploadNotFound."""
        found = self._read_description(self.folder / file_id) if FILE_ID.fullmatch(file_id) else None
        if found is None or found.expires < time.time():
            raise UploadNotFound("There is no such file, or it has expired.")
        return found

    def read(self, file_id: str) -> bytes:
        """Return the content of a file. Raises UploadNotFound."""
        try:
            return (self.folder / self.get(file_id).id / CONTENT).read_bytes()
        except OSError:
            raise UploadNotFound("There is no such file, or it has expired.") from None

    def list_files(self, owner: str) -> list[UploadedFile]:
        """Return the files of an owner, newest first."""
        now = time.time()
        found = [each for each in self._iter_files() if each.owner == owner and each.expires >= now]
        return sorted(found, key=lambda each: each.created, reverse=True)

    def delete(self, file_id: str) -> None:
        """Delete a file. Raises UploadNotFound."""
        shutil.rmtree(self.folder / self.get(file_id).id, ignore_errors=True)

    def find_by_url(self, url: str) -> str | None:
        """Return the id of the file that has this address on this server, None if there is none."""
        try:
            match = ADDRESS.search(urlsplit(url).path)
            return self.get(match["id"]).id if match else None
        except (ValueError, UploadNotFound):
            return None

    def prune(self) -> None:
        """Delete expired files, and what an interrupted upload left."""
        now = time.time()
        for path in self._iter_folders():
            file = self._read_description(path)
            if file is None:
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime < now - STRAY_SECONDS:
                        shutil.rmtree(path, ignore_errors=True)
            elif file.expires < now:
                shutil.rmtree(path, ignore_errors=True)

    def _iter_folders(self) -> Iterator[Path]:
        return (path for path in self.folder.glob("*") if FILE_ID.fullmatch(path.name))

    def _iter_files(self) -> Iterator[UploadedFile]:
        return (file for path in self._iter_folders() if (file := self._read_description(path)) is not None)

    def _read_description(self, path: Path) -> UploadedFile | None:
        try:
            return UploadedFile(**json.loads((path / DESCRIPTION).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def _write(self, file: UploadedFile, data: bytes) -> None:
        path = self.folder / file.id
        try:
            path.mkdir(parents=True)
            _write_synced(path / CONTENT, data)
            # Last: a file exists once it has a description.
            _write_synced(path / f"{DESCRIPTION}.partial", json.dumps(asdict(file)).encode())
            (path / f"{DESCRIPTION}.partial").replace(path / DESCRIPTION)
            for folder in (path, self.folder):
                _sync_folder(folder)
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise StorageFailed("The file cannot be written: is the disk full?") from error


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
