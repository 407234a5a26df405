"""Picture files on disk: written atomically, in one folder per day, and deleted together with their job."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from mflux_api.errors import PictureNotFound, StorageFailed
from mflux_api.jobs.job import Inputs, Job, PictureFile
from mflux_api.jobs.queue import InputPictures, Painted
from mflux_api.logs import log_warning

INPUTS = "inputs"
JOB_ID = re.compile(r"[0-9a-f]{12}")
NAME = re.compile(r"(?P<job>[0-9a-f]{12})-\d+\.png(\.partial)?")


class PictureFiles:
    """The output folder. All methods block: call them on a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, job: Job, painted: Painted) -> PictureFile:
        """Write a finished picture. Raises StorageFailed."""
        return PictureFile(
            file=self._write(self.name(job, painted.index), painted.data),
            text=painted.text,
            seed=painted.seed,
            width=painted.width,
            height=painted.height,
            guidance=painted.guidance,
            timings=painted.timings,
            size=len(painted.data),
            prompt=painted.prompt,
        )

    def name(self, job: Job, index: int) -> str:
        """Return the file name of a job's picture, relative to the output folder."""
        day = time.strftime("%Y-%m-%d", time.localtime(job.created))
        return f"{day}/{job.id}-{index}.png"

    def save_inputs(self, job_id: str, pictures: InputPictures) -> Inputs:
        """Write a job's input pictures unchanged. Raises StorageFailed."""

        size = 0

        def save(name: str, data: bytes) -> str:
            nonlocal size
            size += len(data)
            return self._write(f"{INPUTS}/{job_id}/{name}", data)

        def save_all(name: str, found: Iterable[bytes]) -> tuple[str, ...]:
            return tuple(save(f"{name}-{index}", data) for index, data in enumerate(found))

        return Inputs(
            source=None if pictures.source is None else save("source", pictures.source),
            mask=None if pictures.mask is None else save("mask", pictures.mask),
            references=save_all("reference", pictures.references),
            further_sources=save_all("source", pictures.further_sources),
            size=size,
        )

    def read(self, file: str) -> bytes:
        """Read a file. Raises PictureNotFound when it does not exist."""
        try:
            return (self.folder / file).read_bytes()
        except FileNotFoundError:
            raise PictureNotFound("The file of this picture was deleted.") from None

    def delete_all(self, jobs: Iterable[Job]) -> None:
        """Delete the files of jobs. A file that cannot be deleted is logged, and the others are deleted."""
        for job in jobs:
            try:
                self.delete(job)
            except OSError as error:
                log_warning("pictures.undeleted", id=job.id, reason=str(error))

    def mark_missing(self, job: Job) -> Job:
        """Return the job with the pictures marked whose files were deleted by hand."""
        gone = {index for index, picture in job.present.items() if not (self.folder / picture.file).is_file()}
        if not gone:
            return job
        pictures = (replace(picture, missing=index in gone) for index, picture in enumerate(job.pictures))
        return replace(job, pictures=tuple(pictures))

    def mark_missing_in(self, jobs: Iterable[Job]) -> list[Job]:
        """Do the same for several jobs."""
        return [self.mark_missing(job) for job in jobs]

    def delete(self, job: Job) -> None:
        """Delete all files of a job, and folders of a day that become empty."""
        for picture in job.pictures:
            self.delete_picture(picture.file)
        self.delete_inputs(job.id)

    def delete_picture(self, file: str) -> None:
        path = self.folder / file
        path.unlink(missing_ok=True)
        # Fails if the folder still holds other pictures, or is already deleted.
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def discard(self, pictures: Iterable[PictureFile]) -> None:
        """Delete pictures of a job that is kept. The day's folder stays, because new pictures may follow."""
        for picture in pictures:
            (self.folder / picture.file).unlink(missing_ok=True)

    def delete_inputs(self, job_id: str) -> None:
        shutil.rmtree(self.folder / INPUTS / job_id, ignore_errors=True)

    def strays(self, jobs: Iterable[Job]) -> Iterator[Path]:
        """Yield files of these jobs that are not in their rows, left by an interrupted run."""
        named = {job.id: {picture.file for picture in job.pictures} for job in jobs}
        for path in self.folder.glob("????-??-??/*"):
            match = NAME.fullmatch(path.name)
            if match and match["job"] in named and str(path.relative_to(self.folder)) not in named[match["job"]]:
                yield path

    def delete_stray_inputs(self, known: set[str]) -> None:
        """Delete inputs without a job: the server crashed before the job was accepted."""
        for path in (self.folder / INPUTS).glob("*"):
            if JOB_ID.fullmatch(path.name) and path.name not in known:
                self.delete_inputs(path.name)

    def _write(self, file: str, data: bytes) -> str:
        path = self.folder / file
        partial = path.with_name(f"{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            # Fails too if the disk has become read-only.
            with contextlib.suppress(OSError):
                partial.unlink()
            raise StorageFailed("A picture cannot be written: is the disk full?") from error
        return file


def _sync_folder(folder: Path) -> None:
    # A rename survives a power loss only once the folder is synced too.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
