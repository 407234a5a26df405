"""The contracts of the job queue, and the plain types they use.

The worker knows the queue as `WorkQueue`, the service and the APIs as `ClientQueue`, the webhook sender as
`DeliveryQueue`, the application as `JobQueue`. An implementation has to pass the suites in
tests/jobs/*_contract.py.
"""

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from mflux_api.events import Event
from mflux_api.jobs.job import Failure, Inputs, Job, PictureFile, State
from mflux_api.request import EarlyStop, GenerateRequest

DAY = 86400
BucketLength: TypeAlias = Literal["hour", "day"]
# The name of a job's last event.
END_EVENTS = {State.COMPLETED: "complete", State.FAILED: "failed", State.CANCELLED: "cancelled"}


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a job stands: `step` of `steps` done in picture `image` (from 1) of `of`.

    `stage`: "loading" the model, "upsampling" the prompt, or "painting". `seconds`: the last step's. `preview`: a small
    PNG.
    """

    stage: str
    step: int
    steps: int
    image: int
    of: int
    seconds: float | None = None
    preview: bytes | None = None

    @property
    def fraction(self) -> float:
        """0 to 1, over all steps of all pictures; decoding counts as one, so that 1 means done."""
        return round(((self.image - 1) * (self.steps + 1) + self.step) / (self.of * (self.steps + 1)), 4)


@dataclass(frozen=True, kw_only=True)
class Painted:
    """A finished picture: `data` is a PNG, `text` the generation data inside it, `index` counts from 0.

    `prompt`: what upsampling made of the job's prompt, None without.
    """

    index: int
    data: bytes
    text: str
    seed: int
    width: int
    height: int
    guidance: float
    timings: dict[str, float]
    prompt: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job that is to be submitted."""

    id: str
    priority: int
    held: bool
    owner: str
    key: str | None
    digest: str | None
    model: str
    low_ram: bool
    request: GenerateRequest
    inputs: Inputs
    created: float


@dataclass(frozen=True, kw_only=True)
class InputPictures:
    """The pictures a job starts from, as the client sent them."""

    source: bytes | None = None
    mask: bytes | None = None
    references: tuple[bytes, ...] = ()
    further_sources: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """A job that is being painted, as it stands now.

    `pictures`: those finished so far. `preview`: the last one, a small PNG. `cut`: the last request to end early.
    `seconds_left`: None when nothing is known.
    """

    job: Job
    progress: Progress | None
    preview: bytes | None
    pictures: tuple[PictureFile, ...]
    cut: EarlyStop | None
    seconds_left: float | None

    @property
    def fraction(self) -> float:
        """0 to 1."""
        return 0.0 if self.progress is None else self.progress.fraction


@dataclass(frozen=True)
class JobPage:
    """Jobs, newest first. `total`: on all pages."""

    jobs: list[Job]
    total: int


@dataclass(frozen=True, kw_only=True)
class PictureSearch:
    """Which pictures: of the model with this name, and with each word somewhere in the prompt, in any case."""

    words: frozenset[str] = frozenset()
    model: str | None = None


@dataclass(frozen=True)
class PicturePage:
    """Jobs with pictures, newest first. `following`: number to go on below; `total`: pictures on all pages."""

    jobs: list[Job]
    following: int | None
    total: int


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over all jobs that ever ended. `seconds`: what the completed ones took together."""

    generations: int = 0
    images: int = 0
    failures: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class HistoryBucket:
    """One bucket of time from `start`, seconds since 1970. `seconds`: what its completed jobs took together."""

    start: float
    pictures: int = 0
    failures: int = 0
    seconds: float = 0.0

    @property
    def pace(self) -> float | None:
        """Seconds a picture."""
        return self.seconds / self.pictures if self.pictures else None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """An event of a job that a webhook is to be sent.

    `event`: start, output or completed. `state`: waiting, delivered, failed (given up) or dropped (the event never
    happened). `due`: time of the next attempt. `status`: of the last answer, None where there was none. `error`: why
    the last attempt failed.
    """

    number: int
    job: Job
    event: str
    state: str
    attempts: int
    due: float
    status: int | None
    error: str | None


@dataclass(frozen=True)
class DeliveryPage:
    """Deliveries, newest first. `total`: on all pages."""

    deliveries: list[Delivery]
    total: int


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long finished jobs stay: days, and bytes of pictures and inputs. 0 means no limit."""

    days: float
    bytes: int

    def ended_before(self, now: float) -> float:
        """Jobs that ended before this time, in seconds since 1970, are too old."""
        return now - self.days * DAY if self.days else 0.0


class WorkQueue(Protocol):
    """Jobs for one worker.

    A claimed job belongs to its worker for as long as heartbeats come. Once it was cancelled, or given to another
    after silence, every verb of the first worker raises JobConflict and changes nothing.
    """

    async def claim(self) -> Job:
        """Wait for the next job; it is generating from now on."""

    async def heartbeat(self, job: Job) -> None:
        """Renew the worker's claim."""

    async def progress(self, job: Job, progress: Progress) -> None:
        """Publish progress. Nothing is written to disk."""

    async def picture(self, job: Job, painted: Painted) -> None:
        """Keep a picture: it is on disk when this returns."""

    async def finish(self, job: Job, last: Painted | None = None) -> None:
        """Completed, with the pictures kept so far, and this last one: all of it outlives a crash of the server when
        this returns, or nothing does. A power cut in the moment after may have the job painted again."""

    async def fail(self, job: Job, failure: Failure, *, again: bool) -> bool:
        """Fail the job; with `again`, requeue it while there are tries left. Whether it will be tried again."""

    async def release(self, job: Job) -> None:
        """Requeue the job at its old place; this try does not count."""

    async def next_early_stop(self, job: Job) -> EarlyStop:
        """Wait for the next request to end the picture, or the whole job, with what there is of it."""

    async def wait_for_viewer(self, job: Job) -> None:
        """Wait until somebody looks at previews of this job."""

    async def wait_cancelled(self, job: Job) -> None:
        """Wait until the job is no longer this worker's."""


class ClientQueue(Protocol):
    """Jobs for clients: submit and change them, look at them, wait for them, and read what was painted.

    Every verb that names a job by its id raises JobNotFound; every verb that writes raises StorageFailed. A verb whose
    caller is cancelled runs to its end.
    """

    # Submit and change

    async def submit(self, new: NewJob, *, awaited: bool = False) -> Job:
        """Accept a job, or return the one accepted earlier under the same owner and key.

        Returns once the job is durable; with `awaited=True`, for a client that learns of the job only with its
        picture, before the fsync.

        Raises QueueFull, ShuttingDown, and JobConflict for a key used with another request.
        """

    async def cancel(self, job_id: str) -> Job:
        """Cancel a waiting job at once, a running one at its next step; pictures it has finished stay.

        Raises JobConflict when it has completed or failed.
        """

    async def retry(self, job_id: str, *, held: bool) -> Job:
        """Requeue a failed or cancelled job. Raises JobConflict, QueueFull, ShuttingDown."""

    async def move(self, job_id: str, position: int) -> Job:
        """Move a waiting job to another position, 1 being the next. Raises JobConflict for one that does not wait."""

    async def release_held(self, models: Iterable[str]) -> None:
        """Let the jobs run that waited for these models to be downloaded."""

    async def refuse(self, job: Job, failure: Failure) -> None:
        """Fail a waiting job that can never run. Nothing happens when it has stopped waiting meanwhile."""

    def end_early(self, job_id: str, how: EarlyStop) -> None:
        """Ask the worker to end a running job, or its picture, with what there is; nothing happens to other jobs."""

    def pause(self) -> None:
        """Start no more jobs. The running one goes on."""

    def resume(self) -> None:
        """Start jobs again."""

    # Look at jobs

    @property
    def paused(self) -> bool: ...

    @property
    def closing(self) -> bool:
        """Whether the server stops."""

    async def get(self, job_id: str) -> Job: ...

    async def list_jobs(self, status: str | None, before: int | None, limit: int) -> JobPage:
        """Jobs of one shown status or of all, those numbered below `before`."""

    async def waiting_jobs(self, limit: int) -> list[Job]:
        """The next jobs, in order."""

    async def held_jobs(self) -> list[Job]:
        """Jobs that wait for their model to be downloaded, in the order they were submitted."""

    def running_jobs(self) -> list[RunningJob]:
        """Jobs that are being painted, those started first come first."""

    def count_waiting(self) -> int:
        """How many jobs wait."""

    def position(self, job_id: str) -> int | None:
        """1 for the next job; 0 while it runs; None when it is over."""

    def expected_seconds(self, job: Job) -> float | None:
        """How long a waiting job will take, without loading its model; None when nothing is known."""

    # Wait and watch

    async def wait_ended(self, job: Job) -> Job:
        """The job once it has ended, or as it is when the server stops before it is painted."""

    def watch(self, job_id: str, last_id: str | None, *, previews: bool) -> AsyncGenerator[Event, None]:
        """A job's events until its last: those after `last_id` where it is remembered, else from `current_event` on.

        `previews`: the listener looks at them; without it, events may have previews all the same. Ends early when the
        listener is too slow or the server stops.
        """

    def watch_all(self, last_id: str | None, *, previews: bool) -> AsyncGenerator[Event, None]:
        """Events of every job and download, from `last_id` on where it is remembered, else from now on."""

    def current_event(self, job: Job) -> Event:
        """How a job stands now, as an event. That of an ended job always has the same id."""

    def report_download(self, job: Job, fraction: float) -> None:
        """Publish how much of a waiting job's model has been downloaded, 0 to 1."""

    def request_previews(self) -> None:
        """Have previews made for a while, of any job: a client asked for the latest and will ask again."""

    # Pictures

    async def save_inputs(self, job_id: str, pictures: InputPictures) -> Inputs:
        """Write the pictures a job starts from, before it is submitted."""

    async def delete_inputs(self, job_id: str) -> None:
        """Delete the pictures of a job that was not accepted."""

    def read_picture(self, file: str) -> bytes:
        """The bytes of a picture or an input by the file its job names. It blocks. Raises PictureNotFound."""

    async def search_pictures(self, search: PictureSearch, before: int | None, limit: int) -> PicturePage:
        """As many whole jobs as it takes for `limit` pictures, those numbered below `before` only."""

    async def delete_picture(self, job_id: str, name: str) -> None:
        """Delete a picture, named by its index, and its file. Raises PictureNotFound, and JobConflict while it runs."""

    # Statistics, and values to remember

    async def totals(self) -> Totals:
        """Sums since the database was made. They outlive the jobs they count."""

    async def history(self, bucket: BucketLength, count: int) -> list[HistoryBucket]:
        """The last buckets, oldest first; the last one is not over yet. Days are UTC's."""

    async def save_value(self, name: str, value: str) -> None:
        """Remember a value across restarts."""

    async def load_value(self, name: str) -> str | None:
        """The value saved last under a name."""

    async def list_deliveries(self, state: str | None, before: int | None, limit: int) -> DeliveryPage:
        """Webhook deliveries of one state or of all, those numbered below `before`."""


class DeliveryQueue(Protocol):
    """Webhook deliveries for the one task that sends them. A job's deliveries are accepted with the job."""

    @property
    def closing(self) -> bool:
        """Whether the server stops."""

    async def due_deliveries(self) -> list[Delivery]:
        """What is to be sent now, the oldest first."""

    async def record_attempt(self, number: int, *, state: str, next_try: float, status: int | None, error: str) -> None:
        """Record an attempt and what it came to. `error`: empty when the webhook was taken."""

    async def wait_for_deliveries(self, seconds: float) -> None:
        """Wait until more may be due than `due_deliveries` last returned, or so long."""


class JobQueue(WorkQueue, ClientQueue, DeliveryQueue, Protocol):
    """One queue for all of them, as the application opens and closes it."""

    async def open(self) -> None:
        """Go on where the last run ended. Raises InvalidRequest when another server has it, StorageFailed."""

    def drain(self) -> None:
        """Accept and start no more jobs, end all streams, and wake those who wait for waiting jobs."""

    def stop_waits(self) -> None:
        """Wake everybody who still waits for a job to end."""

    async def wait_idle(self) -> None:
        """Wait until no job is running."""

    async def close(self) -> None:
        """Give every unfinished job back for the next run."""

    async def prune(self, retention: Retention) -> int:
        """Delete finished jobs that are too old or too many, with their pictures. Returns how many."""
