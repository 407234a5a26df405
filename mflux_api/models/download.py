"""Download models from Hugging Face: resumable, checked against the hub's checksums, and visible only when complete.

`hf_hub_download` (1.33) restarts an interrupted file from its first byte, and these files have up to 18 GB. So the
hub's client only lists, authenticates and connects; this module writes the bytes.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

import httpx

from mflux_api.checkpoints.completeness import is_whole_file
from mflux_api.checkpoints.detection import WEIGHT_COMPONENTS
from mflux_api.errors import DiskFull, DownloadFailed, InvalidRequest, ModelIncomplete, ModelUnsupported, StorageFailed
from mflux_api.models.download_queue import DownloadProgress, OnProgress
from mflux_api.models.hub import RemoteFile, Repository, is_transient, list_files, open_stream, translate_errors
from mflux_api.models.registry import COMPANION_FILES, ModelSpec, find_missing_files, find_snapshot, find_spec

CHUNK = 1 << 20
SPARE_BYTES = 10**9
LOCK_POLL_SECONDS = 0.2
# Waits before a broken connection is tried again. The sequence restarts as soon as any bytes arrive.
RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0)


def download(spec: ModelSpec, models_dir: Path, on_progress: OnProgress, stop: threading.Event) -> Path:
    """Download a model into its folder in `models_dir`, and return the folder. Blocking.

    Until all files are complete and verified they are in a hidden folder, which the next attempt continues. Of an
    existing folder only files that are missing or cut off are fetched; the others stay as they are.

    Raises DownloadFailed (also when stopped), ModelGated, DiskFull, StorageFailed, ModelNotFound for a missing
    repository, ModelIncomplete if the repository lacks what is missing, ModelUnsupported and InvalidRequest.
    """
    if spec.unavailable:
        raise ModelUnsupported(spec.unavailable, model=spec.name)
    if spec.repository is None:
        raise InvalidRequest(f"{spec.name} cannot be downloaded: no repository is known for it.", model=spec.name)
    target, partial = models_dir / spec.folder, models_dir / f".{spec.folder}.partial"
    with _storage_errors(spec), translate_errors(spec.repository):
        models_dir.mkdir(parents=True, exist_ok=True)
        with _hold_lock(models_dir / f".{spec.folder}.lock", spec, stop):
            if not find_missing_files(spec, target):
                return target
            repository = _list_repository(spec, spec.repository)
            _check_is_checkpoint(spec, repository)
            if target.is_dir():
                repository = _choose_missing(spec, repository, target)
                _take_pieces(repository, target, partial)
            _take_cached(spec, repository, partial)
            _Download(spec, repository, partial, on_progress, stop).run()
            _put_in_place(repository, partial, target)
            _check_folder(spec, target)
    return target


class _Download:
    """One attempt to download a repository into `folder`."""

    def __init__(
        self, spec: ModelSpec, repository: Repository, folder: Path, on_progress: OnProgress, stop: threading.Event
    ) -> None:
        self.spec = spec
        self.repository = repository
        self.folder = folder
        self.on_progress = on_progress
        self.stop = stop
        self.verified: set[str] = set()
        self.received = 0
        self.started = time.monotonic()

    def run(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self._check_disk_space()
        for file in self.repository.files:
            self._report_progress()
            self._fetch_file(file)
            self.verified.add(file.path)
        self._report_progress()
        self._remove_unlisted_files()

    def _check_disk_space(self) -> None:
        needed = sum(file.size - self._count_received(file) for file in self.repository.files) + SPARE_BYTES
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise DiskFull(
                f"{self.spec.name} needs {needed / 1e9:.1f} GB of disk space (1 GB to spare included), and "
                f"{free / 1e9:.1f} GB are free. Make room and start it again: it goes on where it stopped.",
                model=self.spec.name,
                needed_bytes=needed,
                free_bytes=free,
            )

    def _fetch_file(self, file: RemoteFile) -> None:
        path = self.folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        continued = self._count_received(file) > 0
        self._receive_with_retries(file)
        if self._is_intact(file):
            return
        path.unlink()
        if not continued:
            raise DownloadFailed(
                f"{file.path} of {self.spec.name} arrived with other bytes than {self.repository.name} lists, and was "
                "thrown away. Try again: the other files are kept.",
                model=self.spec.name,
                file=file.path,
            )
        # The earlier part was damaged or belongs to another commit. Start again from the first byte.
        self._fetch_file(file)

    def _receive_with_retries(self, file: RemoteFile) -> None:
        waits = iter(RETRY_SECONDS)
        while (have := self._count_received(file)) < file.size:
            self._check_not_stopped()
            try:
                self._receive_bytes(file, have)
            except httpx.HTTPError as error:
                waits = iter(RETRY_SECONDS) if self._count_received(file) > have else waits
                wait = next(waits, None) if is_transient(error) else None
                if wait is None:
                    raise
                self.stop.wait(wait)

    def _receive_bytes(self, file: RemoteFile, have: int) -> None:
        path = self.folder / file.path
        with open_stream(file, have) as response, path.open(_mode(response)) as out:
            for chunk in response.iter_bytes(CHUNK):
                self._check_not_stopped()
                out.write(chunk)
                # Flush, so that the counted bytes survive an interruption.
                out.flush()
                self.received += len(chunk)
                self._report_progress()
                if out.tell() > file.size:
                    return
            # The bytes must be on disk before the final rename is.
            os.fsync(out.fileno())
        if self._count_received(file) < file.size:
            raise httpx.RemoteProtocolError("The answer ended early.")

    def _is_intact(self, file: RemoteFile) -> bool:
        path = self.folder / file.path
        if path.stat().st_size != file.size:
            return False
        # Git's blob id of a small file is the SHA-1 of a header and the file's bytes.
        digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        with path.open("rb") as content:
            while chunk := content.read(CHUNK):
                self._check_not_stopped()
                digest.update(chunk)
        return digest.hexdigest() == (file.sha256 or file.blob_id)

    def _remove_unlisted_files(self) -> None:
        # An earlier attempt at another commit may have left files that are not in this one.
        for path in self.folder.rglob("*"):
            if path.is_file() and path.relative_to(self.folder).as_posix() not in self.verified:
                path.unlink()

    def _count_received(self, file: RemoteFile) -> int:
        path = self.folder / file.path
        return min(path.stat().st_size, file.size) if path.is_file() else 0

    def _report_progress(self) -> None:
        seconds = time.monotonic() - self.started
        self.on_progress(
            DownloadProgress(
                done_files=len(self.verified),
                total_files=len(self.repository.files),
                done_bytes=sum(map(self._count_received, self.repository.files)),
                total_bytes=sum(file.size for file in self.repository.files),
                bytes_per_second=self.received / seconds if seconds else 0.0,
            )
        )

    def _check_not_stopped(self) -> None:
        if self.stop.is_set():
            raise _stopped_error(self.spec)


def _list_repository(spec: ModelSpec, name: str) -> Repository:
    """List the model's files, including those it takes from another model's repository."""
    repository = list_files(name, spec.revision, spec.files)
    if not spec.rest:
        return repository
    rest = find_spec(spec.rest)
    with translate_errors(str(rest.repository)):
        others = list_files(str(rest.repository), rest.revision, COMPANION_FILES)
    return replace(repository, files=(*repository.files, *others.files))


def _choose_missing(spec: ModelSpec, repository: Repository, folder: Path) -> Repository:
    """Return the repository with only the files that a folder lacks."""
    missing = find_missing_files(spec, folder)
    # Without any weights of its own the folder is the beginning of this download. Otherwise it may be another layout.
    is_beginning = set(WEIGHT_COMPONENTS) <= {name.partition("/")[0] for name in missing}

    def is_missing(path: str) -> bool:
        named = path in missing or any(path.startswith(f"{name}/") for name in missing)
        return not is_whole_file(folder / path) and (named or is_beginning)

    return replace(repository, files=tuple(file for file in repository.files if is_missing(file.path)))


def _take_pieces(repository: Repository, folder: Path, partial: Path) -> None:
    """Move files that are cut off to the hidden folder, where the download continues them."""
    for file in repository.files:
        piece, aim = folder / file.path, partial / file.path
        if piece.is_file() and not piece.is_symlink() and not aim.exists():
            aim.parent.mkdir(parents=True, exist_ok=True)
            piece.replace(aim)


def _take_cached(spec: ModelSpec, repository: Repository, partial: Path) -> None:
    """Link or copy whole files from the Hugging Face cache. The download verifies them like its own."""
    snapshot = find_snapshot(spec)
    for file in repository.files if snapshot is not None else ():
        cached, aim = snapshot / file.path, partial / file.path  # type: ignore[operator]
        mine = file.repository == spec.repository and not aim.exists()
        if mine and cached.is_file() and cached.stat().st_size == file.size:
            aim.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(cached.resolve(), aim)


def _link_or_copy(source: Path, aim: Path) -> None:
    try:
        aim.hardlink_to(source)
    except OSError:
        # Another disk, or one without such links.
        shutil.copyfile(source, aim)


def _put_in_place(repository: Repository, partial: Path, target: Path) -> None:
    """Move the verified files to the model's folder: the whole folder, or each file into an existing one."""
    if not target.is_dir():
        partial.rename(target)
        return
    for file in repository.files:
        (target / file.path).parent.mkdir(parents=True, exist_ok=True)
        (partial / file.path).replace(target / file.path)
    shutil.rmtree(partial, ignore_errors=True)


def _check_folder(spec: ModelSpec, folder: Path) -> None:
    missing = find_missing_files(spec, folder)
    if missing:
        raise ModelIncomplete(
            f"models/{spec.folder} lacks {', '.join(missing)}, which {spec.repository} does not have: add them.",
            model=spec.name,
        )


def _check_is_checkpoint(spec: ModelSpec, repository: Repository) -> None:
    if spec.files:
        missing = sorted(set(spec.files) - {file.path for file in repository.files})
        if missing:
            raise ModelUnsupported(f"{repository.name} has no {', '.join(missing)}.", model=spec.name)
        return
    weights = [PurePosixPath(file.path) for file in repository.files if file.path.endswith(".safetensors")]
    missing = [part for part in WEIGHT_COMPONENTS if not any(path.parts[0] == part for path in weights)]
    if missing:
        raise ModelUnsupported(
            f"{repository.name} is not a FLUX.2 klein checkpoint: it has no {', '.join(missing)}.", model=spec.name
        )


def _mode(response: httpx.Response) -> Literal["ab", "wb"]:
    # Status 200: the server does not support ranges and sends the whole file.
    return "ab" if response.status_code == 206 else "wb"


def _stopped_error(spec: ModelSpec) -> DownloadFailed:
    return DownloadFailed(
        f"The download of {spec.name} was stopped. Start it again: it goes on where it stopped.", model=spec.name
    )


@contextmanager
def _storage_errors(spec: ModelSpec) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(
                f"The disk is full: {spec.name} is not downloaded. Make room and start it again: "
                "it goes on where it stopped.",
                model=spec.name,
            ) from error
        raise StorageFailed(
            f"The files of {spec.name} cannot be written to the models folder.", model=spec.name
        ) from error


@contextmanager
def _hold_lock(lock: Path, spec: ModelSpec, stop: threading.Event) -> Iterator[None]:
    """Hold the model's lock file, after waiting for other downloads of the model in any process."""
    with lock.open("w") as file:
        while not _try_lock(file.fileno()):
            if stop.wait(LOCK_POLL_SECONDS):
                raise _stopped_error(spec)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
