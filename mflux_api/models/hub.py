"""Requests to a Hugging Face hub through its own client. Its exceptions become errors of this package."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath

import httpx
from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoSibling

from mflux_api.errors import DownloadFailed, MfluxError, ModelGated, ModelNotFound

ENDPOINT_VARIABLE = "HF_ENDPOINT"
TRANSIENT_STATUSES = (408, 429, 500, 502, 503, 504)
SUFFIXES = (".json", ".txt", ".safetensors", ".jinja", ".model", ".md")
COMMIT = re.compile(r"[0-9a-f]{40}")
# File names come from the network, so no part of a path may begin with a dot or a slash.
SAFE_PATH = re.compile(r"(\w[\w.-]*/)*\w[\w.-]*", re.ASCII)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository at one commit. `size`: bytes.

    `sha256`: known for large files. `blob_id`: git's SHA-1, known for small files.
    """

    path: str
    size: int
    sha256: str | None
    blob_id: str | None
    repository: str
    commit: str


@dataclass(frozen=True)
class Repository:
    """A repository at one commit, with the files that its model needs. Some may come from another repository."""

    name: str
    commit: str
    files: tuple[RemoteFile, ...]


def list_files(name: str, revision: str | None, patterns: Sequence[str] = ()) -> Repository:
    """List the files that a model needs, or those that match `patterns` (file names or shell patterns).

    Raises what httpx and huggingface_hub raise (see `translate_errors`), and DownloadFailed if the server that answers
    is not a hub.
    """
    try:
        info = HfApi(endpoint=_endpoint()).model_info(name, revision=revision, files_metadata=True, timeout=_timeout())
        if COMMIT.fullmatch(revision or "") and info.sha != revision:
            raise ValueError(f"The hub answered with commit {info.sha}.")
        commit = info.sha or revision or "main"
        wanted = (file for file in info.siblings or [] if _is_wanted(file.rfilename, patterns))
        files = tuple(_make_remote_file(file, name, commit) for file in wanted)
    except (ValueError, TypeError, LookupError) as error:
        raise DownloadFailed(
            f"What answered in place of Hugging Face is no model hub: {name} cannot be listed. "
            f"Check the network and {ENDPOINT_VARIABLE}, and try again.",
            repository=name,
        ) from error
    return Repository(name, commit, files)


@contextmanager
def open_stream(file: RemoteFile, start: int) -> Iterator[httpx.Response]:
    """Open a response with the file's bytes from `start` on, or from 0 if its status is 200 instead of 206."""
    url = hf_hub_url(file.repository, file.path, revision=file.commit, endpoint=_endpoint())
    # No compression, so that the bytes can be counted.
    headers = {"Accept-Encoding": "identity"}
    if token := get_token():
        headers["Authorization"] = f"Bearer {token}"
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream("GET", url, headers=headers, timeout=_timeout()) as response:
        hf_raise_for_status(response)
        yield response


def is_transient(error: httpx.HTTPError) -> bool:
    """Return whether the same request may succeed a moment later."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in TRANSIENT_STATUSES
    return isinstance(error, httpx.TransportError)


@contextmanager
def translate_errors(repository: str) -> Iterator[None]:
    """Convert the client's exceptions to errors of this package. Their text is not used in the messages."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, OfflineModeIsEnabled) as error:
        raise _translate_error(error, repository) from error


def _translate_error(error: Exception, repository: str) -> MfluxError:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    missing = isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | EntryNotFoundError)
    if isinstance(error, GatedRepoError) or (status in (401, 403) and not missing):
        return _gated(repository, status)
    if missing:
        return ModelNotFound(
            f"Hugging Face has no {repository}, not at this revision, or keeps it private.", repository=repository
        )
    reason = f"Hugging Face answered with status {status}" if status else "Hugging Face cannot be reached"
    return DownloadFailed(
        f"{reason}: {repository} is not downloaded. Try again: it goes on where it stopped.",
        repository=repository,
        status=status,
    )


def _gated(repository: str, status: int | None) -> ModelGated:
    if get_token() is None:
        reason, do = "no_token", "Accept its licence there and set HF_TOKEN to a token of that account."
    elif status == 401:
        reason, do = "token_refused", "HF_TOKEN holds a token that is not valid: make a new one."
    else:
        reason, do = "not_accepted", "The account of HF_TOKEN has not accepted its licence there, or may not read it."
    page = f"{_endpoint() or constants.ENDPOINT}/{repository}"
    return ModelGated(f"{repository} is gated: {page}. {do}", repository=repository, reason=reason, page=page)


def _is_wanted(path: str, patterns: Sequence[str]) -> bool:
    if patterns:
        return SAFE_PATH.fullmatch(path) is not None and any(fnmatch(path, pattern) for pattern in patterns)
    name = PurePosixPath(path)
    # Safetensors files beside the folders repeat the transformer in one file.
    repeats = name.suffix == ".safetensors" and len(name.parts) == 1
    kept = name.suffix in SUFFIXES or name.name.upper().startswith("LICEN")
    return SAFE_PATH.fullmatch(path) is not None and kept and not repeats


def _make_remote_file(file: RepoSibling, repository: str, commit: str) -> RemoteFile:
    if file.size is None or (file.lfs is None and file.blob_id is None):
        raise ValueError(f"The hub lists {file.rfilename} without a size or checksum.")
    sha256 = file.lfs.sha256 if file.lfs else None
    return RemoteFile(file.rfilename, file.size, sha256, file.blob_id, repository, commit)


def _endpoint() -> str | None:
    return os.environ.get(ENDPOINT_VARIABLE, "").rstrip("/") or None


def _timeout() -> float:
    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
