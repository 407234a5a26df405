"""Pictures on disk: all of a file or nothing, in a folder a day, and deleted with their job."""

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mflux_api.errors import PictureNotFound, StorageFailed
from mflux_api.jobs.job import Inputs, Job, PictureFile
from mflux_api.jobs.queue import InputPictures, Painted

INPUTS = "inputs"
JOB_ID = re.compile(r"[0-9a-f]{12}")
NAME = re.compile(r"(?P<job>[0-9a-f]{12})-\d+\.png(\.partial)?")


class PictureFiles:
    """The output folder. Calls block: run them on a thread."""

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
        """Of the file of a job's picture, relative to the folder."""
        day = time.strftime("%Y-%m-%d", time.localtime(job.created))
        return f"{day}/{job.id}-{index}.png"

    def save_inputs(self, job_id: str, pictures: InputPictures) -> Inputs:
        """Write what a job starts from, as it came. Raises StorageFailed."""

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
        """Raises PictureNotFound when somebody deleted it."""
        try:
            return (self.folder / file).read_bytes()
        except FileNotFoundError:
            raise PictureNotFound("The file of this picture was deleted.") from None

    def delete(self, job: Job) -> None:
        """Delete everything a job left, and the day's folder when it was the last."""
        for picture in job.pictures:
            self.delete_picture(picture.file)
        self.delete_inputs(job.id)

    def delete_picture(self, file: str) -> None:
        path = self.folder / file
        path.unlink(missing_ok=True)
        # Not empty, or gone: the day has other pictures, or another job's were the last.
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def discard(self, pictures: Iterable[PictureFile]) -> None:
        """Delete pictures of a job that stays, and may have others soon."""
        for picture in pictures:
            (self.folder / picture.file).unlink(missing_ok=True)

    def delete_inputs(self, job_id: str) -> None:
        shutil.rmtree(self.folder / INPUTS / job_id, ignore_errors=True)

    def strays(self, jobs: Iterable[Job]) -> Iterator[Path]:
        """Files of these jobs that their rows do not name: what an interrupted run left."""
        named = {job.id: {picture.file for picture in job.pictures} for job in jobs}
        for path in self.folder.glob("????-??-??/*"):
            match = NAME.fullmatch(path.name)
            if match and match["job"] in named and str(path.relative_to(self.folder)) not in named[match["job"]]:
                yield path

    def delete_stray_inputs(self, known: set[str]) -> None:
        """Delete inputs whose job was never accepted: a crash came between the two."""
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
            # A disk that became read-only refuses this too.
            with contextlib.suppress(OSError):
                partial.unlink()
            raise StorageFailed("A picture cannot be written: is the disk full?") from error
        return file


def _sync_folder(folder: Path) -> None:
    # A renamed file is only safe from a power cut once its folder is written too.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
