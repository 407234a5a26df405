"""The job record, its states, and the allowed transitions between them."""

import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mflux_api.errors import JobConflict, PictureNotFound
from mflux_api.request import GenerateRequest, count_repaint_steps


class State(StrEnum):
    QUEUED = "queued"
    GENERATING = "generating"
    # The worker was lost. The job waits to be started again.
    INTERRUPTED = "interrupted"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING = frozenset({State.QUEUED, State.INTERRUPTED})
FINAL = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})

ALLOWED: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.GENERATING, State.FAILED, State.CANCELLED}),
    State.GENERATING: frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.INTERRUPTED}),
    State.INTERRUPTED: frozenset({State.GENERATING, State.FAILED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
}


def new_job_id() -> str:
    return secrets.token_hex(6)


def check_transition(before: State, after: State) -> None:
    """Raise JobConflict if ALLOWED does not contain this transition."""
    if after not in ALLOWED[before]:
        raise JobConflict(
            f"A {public_status(before)} job cannot become {public_status(after)}.", status=public_status(before)
        )


def public_status(state: State) -> str:
    """Return the documented name of a state. An interrupted job is shown as queued."""
    return State.QUEUED if state is State.INTERRUPTED else state


@dataclass(frozen=True, kw_only=True)
class PictureFile:
    """A finished picture and the values it was painted with.

    `file`: path relative to the output folder. `guidance`: the value that was used. `timings`: seconds by stage and
    in "total". `text`: the metadata in the PNG. `size`: bytes. `prompt`: the upsampled prompt, None without
    upsampling. `deleted`: a client deleted the file; the entry stays, so that the other pictures keep their index.
    `missing`: the file is not there now; not stored.
    """

    file: str
    text: str
    seed: int
    width: int
    height: int
    guidance: float
    timings: dict[str, float]
    size: int
    prompt: str | None = None
    deleted: bool = False
    missing: bool = False


def find_picture(pictures: tuple[PictureFile, ...], name: str) -> tuple[int, PictureFile]:
    """Return the index and the picture that a client names by its index. Raises PictureNotFound."""
    if name not in map(str, range(len(pictures))):
        raise PictureNotFound(f"This job has {len(pictures)} pictures, counted from 0.", pictures=len(pictures))
    if pictures[int(name)].deleted:
        raise PictureNotFound("This picture was deleted.", pictures=len(pictures))
    return int(name), pictures[int(name)]


@dataclass(frozen=True)
class Failure:
    """Why a job failed. Clients may see all of it."""

    code: str
    status: int
    message: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Files of a job's input pictures, relative to the output folder. `size`: their bytes in total."""

    source: str | None = None
    mask: str | None = None
    references: tuple[str, ...] = ()
    further_sources: tuple[str, ...] = ()
    size: int = 0

    @property
    def files_by_name(self) -> dict[str, str]:
        """The files, by the names that clients use."""
        single = {"source": self.source, "mask": self.mask}
        references = {f"reference-{index}": file for index, file in enumerate(self.references)}
        return {**{name: file for name, file in single.items() if file is not None}, **references}

    @property
    def files(self) -> tuple[str, ...]:
        files = (self.source, *self.further_sources, self.mask, *self.references)
        return tuple(file for file in files if file is not None)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A row of the database. Times are in seconds since 1970.

    `number`: the order of submission. `place`: the order in the queue among jobs of one `priority`. `held`: the job
    waits for its model to be downloaded. `attempts`: how often the job was started; a worker's claim is checked
    against it. `request`: holds no pictures; those are files, named by `inputs`.
    """

    id: str
    number: int
    state: State
    priority: int
    place: float
    held: bool
    attempts: int
    owner: str
    key: str | None
    digest: str | None
    model: str
    low_ram: bool
    request: GenerateRequest
    inputs: Inputs
    pictures: tuple[PictureFile, ...]
    error: Failure | None
    created: float
    started: float | None
    finished: float | None

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def present(self) -> dict[int, PictureFile]:
        """The pictures that are here, by index."""
        return {index: picture for index, picture in self.kept_pictures.items() if not picture.missing}

    @property
    def kept_pictures(self) -> dict[int, PictureFile]:
        """The pictures that were not deleted, by index. A copy of a missing one may be in a bucket."""
        return {index: picture for index, picture in enumerate(self.pictures) if not picture.deleted}

    @property
    def upsampled_prompt(self) -> str | None:
        """The upsampled prompt; None without upsampling and before the first picture is finished."""
        return self.pictures[0].prompt if self.pictures else None

    @property
    def steps(self) -> int:
        """Steps of a picture in its first pass."""
        request = self.request
        return request.steps if self.inputs.source is None else count_repaint_steps(request.steps, request.strength)

    @property
    def seconds(self) -> float | None:
        """How long the job ran; None until it has finished."""
        return None if self.started is None or self.finished is None else self.finished - self.started
