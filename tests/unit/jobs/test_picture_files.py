import os
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from mflux_api.errors import PictureNotFound, StorageFailed
from mflux_api.jobs.job import Inputs, Job, PictureFile
from mflux_api.jobs.picture_files import PictureFiles
from mflux_api.jobs.queue import InputPictures
from tests.support.jobs import JOB, list_files, make_painted

DAY = time.strftime("%Y-%m-%d", time.localtime(JOB.created))
OTHER = replace(JOB, id="ba9876543210")


def with_pictures(job: Job, *names: str) -> Job:
    return replace(
        job,
        pictures=tuple(
            PictureFile(file=name, text="", seed=1, width=64, height=64, guidance=1.0, timings={}, size=1)
            for name in names
        ),
    )


def save(images: PictureFiles, job: Job, index: int, data: bytes) -> str:
    return images.save(job, make_painted(index, data)).file


def no_space(*_: object) -> NoReturn:
    raise OSError(28, "No space left on device")


def test_a_picture_is_kept_in_the_folder_of_its_day(tmp_path: Path) -> None:
    images = PictureFiles(tmp_path)
    file = save(images, JOB, 0, b"picture")
    assert file == f"{DAY}/0123456789ab-0.png"
    assert images.read(file) == b"picture"
    assert list_files(tmp_path) == {file}


def test_a_picture_painted_again_replaces_the_first(tmp_path: Path) -> None:
    images = PictureFiles(tmp_path)
    assert save(images, JOB, 0, b"first") == save(images, JOB, 0, b"second")
    assert images.read(save(images, JOB, 0, b"third")) == b"third"
    assert len(list_files(tmp_path)) == 1


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    images = PictureFiles(tmp_path)
    monkeypatch.setattr(os if failing == "fsync" else Path, failing, no_space)
    with pytest.raises(StorageFailed, match="is the disk full"):
        save(images, JOB, 0, b"picture")
    assert list_files(tmp_path) == set()
    monkeypatch.undo()
    assert images.read(save(images, JOB, 0, b"picture")) == b"picture"


def test_a_write_that_fails_leaves_the_earlier_picture_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = PictureFiles(tmp_path)
    file = save(images, JOB, 0, b"earlier")
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageFailed):
        save(images, JOB, 0, b"later")
    assert images.read(file) == b"earlier"
    assert list_files(tmp_path) == {file}


def test_a_folder_that_cannot_be_made_is_told_as_a_broken_disk(tmp_path: Path) -> None:
    (tmp_path / DAY).write_bytes(b"in the way")
    with pytest.raises(StorageFailed):
        save(PictureFiles(tmp_path), JOB, 0, b"picture")


def test_file_and_folder_are_written_through_before_the_picture_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def recorded(handle: int) -> None:
        synced.append(Path(f"/dev/fd/{handle}").resolve().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recorded)
    save(PictureFiles(tmp_path), JOB, 0, b"picture")
    assert len(synced) == 2


def test_a_picture_that_somebody_deleted_is_not_found(tmp_path: Path) -> None:
    images = PictureFiles(tmp_path)
    file = save(images, JOB, 0, b"picture")
    (tmp_path / file).unlink()
    with pytest.raises(PictureNotFound):
        images.read(file)


def test_inputs_are_kept_as_they_came(tmp_path: Path) -> None:
    images = PictureFiles(tmp_path)
    inputs = images.save_inputs(JOB.id, InputPictures(source=b"source", mask=b"mask", references=(b"one", b"two")))
    assert [images.read(file) for file in inputs.files] == [b"source", b"mask", b"one", b"two"]
    assert inputs.size == len(b"sourcemaskonetwo")
    assert images.save_inputs(JOB.id, InputPictures()) == Inputs()
    images.delete_inputs(JOB.id)
    images.delete_inputs(JOB.id)
    assert list_files(tmp_path) == set()


def test_a_job_is_deleted_with_its_inputs_and_the_empty_folder_of_its_day(tmp_path: Path) -> None:
    images = PictureFiles(tmp_path)
    job = with_pictures(JOB, *(save(images, JOB, index, b"picture") for index in range(2)))
    kept = save(images, OTHER, 0, b"other")
    images.save_inputs(JOB.id, InputPictures(source=b"source"))
    theirs = images.save_inputs(OTHER.id, InputPictures(source=b"source"))
    images.delete(job)
    assert list_files(tmp_path) == {kept, *theirs.files}
    images.delete(with_pictures(OTHER, kept))
    assert not (tmp_path / kept).parent.exists()


def test_a_job_whose_files_are_gone_can_be_deleted(tmp_path: Path) -> None:
    PictureFiles(tmp_path).delete(with_pictures(JOB, f"{DAY}/0123456789ab-0.png"))
    assert list_files(tmp_path) == set()


def test_strays_are_files_of_these_jobs_that_their_records_do_not_name(tmp_path: Path) -> None:
    images = PictureFiles(tmp_path)
    named, stray = save(images, JOB, 0, b"named"), save(images, JOB, 1, b"stray")
    save(images, OTHER, 0, b"somebody else's")
    day = (tmp_path / named).parent
    for name in ("holiday.png", "0123456789ab-x.png", "0123456789abc-0.png", "0123456789ab-0.png.bak"):
        (day / name).write_bytes(b"a person's own")
    partial = day / "0123456789ab-2.png.partial"
    partial.write_bytes(b"half")
    assert set(images.strays([with_pictures(JOB, named)])) == {tmp_path / stray, partial}
    assert list(images.strays([])) == []


def test_inputs_of_an_order_that_was_never_accepted_are_deleted_and_nothing_else_is(tmp_path: Path) -> None:
    images = PictureFiles(tmp_path)
    images.save_inputs("0123456789ab", InputPictures(source=b"kept"))
    images.save_inputs("ba9876543210", InputPictures(source=b"stray"))
    (tmp_path / "inputs" / "mine").mkdir()
    images.delete_stray_inputs({"0123456789ab"})
    assert sorted(path.name for path in (tmp_path / "inputs").iterdir()) == ["0123456789ab", "mine"]
