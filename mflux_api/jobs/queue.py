"""The contracts of the job queue, and the plain types they use.

The worker uses `WorkQueue`, the service and the APIs `ClientQueue`, the webhook sender `DeliveryQueue`, the
application `JobQueue`. An implementation has to pass the suites in tests/unit/jobs/*_contract.py.
"""

from collections.abc import AsyncGenerator, Collection, Iterable
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
    """Progress of a job: `step` of `steps` are done in picture `image` (from 1) of `of`.

    `stage`: "loading" the model, "upsampling" the prompt, or "painting". `seconds`: duration of the last step.
    `preview`: a small PNG.
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
        """0 to 1, over all steps of all pictures. Decoding counts as a step, so that 1 means done."""
        return round(((self.image - 1) * (self.steps + 1) + self.step) / (self.of * (self.steps + 1)), 4)


@dataclass(frozen=True, kw_only=True)
class Painted:
    """A finished picture from the worker.

    `index`: counts from 0. `data`: a PNG. `text`: the metadata in the PNG. `timings`: seconds by stage and in
    "total". `prompt`: the upsampled prompt, None without upsampling.
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
    """A job to submit."""

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
    """A job's input pictures, as the client sent them."""

    source: bytes | None = None
    mask: bytes | None = None
    references: tuple[bytes, ...] = ()
    further_sources: tuple[bytes, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunningJob:
    """A snapshot of a running job.

    `pictures`: those finished so far. `preview`: the latest one, a small PNG. `cut`: the latest early stop that was
    requested. `seconds_left`: None when no estimate is possible.
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
    """Jobs, newest first. `total`: jobs on all pages."""

    jobs: list[Job]
    total: int


@dataclass(frozen=True, kw_only=True)
class PictureSearch:
    """A filter for pictures: the model's name, and words that must all occur in the prompt, in any case."""

    words: frozenset[str] = frozenset()
    model: str | None = None


@dataclass(frozen=True)
class PicturePage:
    """Jobs with pictures, newest first. `following`: `before` of the next page. `total`: pictures on all pages."""

    jobs: list[Job]
    following: int | None
    total: int


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Sums over all jobs that ever ended. `seconds`: total running time of the completed ones."""

    generations: int = 0
    images: int = 0
    failures: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class HistoryBucket:
    """A period of time from `start`, in seconds since 1970. `seconds`: total running time of its completed jobs."""

    start: float
    pictures: int = 0
    failures: int = 0
    seconds: float = 0.0

    @property
    def pace(self) -> float | None:
        """Seconds per picture; None without pictures."""
        return self.seconds / self.pictures if self.pictures else None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The delivery of a job's event to its webhook.

    `host`: host and port of the webhook's URL. `event`: start, output or completed. `state`: waiting, delivered, failed
    (given up) or dropped (the event never happened). `due`: time of the next attempt, seconds since 1970. `status`:
    HTTP status of the last answer, None without one. `error`: why the last attempt failed.
    """

    number: int
    job: Job
    host: str
    event: str
    state: str
    attempts: int
    due: float
    status: int | None
    error: str | None


@dataclass(frozen=True)
class DeliveryPage:
    """Deliveries, newest first. `total`: deliveries on all pages."""

    deliveries: list[Delivery]
    total: int


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long finished jobs are kept: `days`, and `bytes` of pictures and inputs in total. 0 means no limit."""

    days: float
    bytes: int

    def ended_before(self, now: float) -> float:
        """Return the time, in seconds since 1970, before which an ended job is too old."""
        return now - self.days * DAY if self.days else 0.0


class WorkQueue(Protocol):
    """The queue as a worker sees it.

    A claimed job belongs to its worker while heartbeats arrive. Once the job was cancelled, or was given to another
    worker because heartbeats were missing, every method called by the first worker raises JobConflict and changes
    nothing.
    """

    async def claim(self) -> Job:
        """Wait for the next job, set its state to generating and return it."""

    async def heartbeat(self, job: Job) -> None:
        """Renew the worker's claim."""

    async def progress(self, job: Job, progress: Progress) -> None:
        """Publish progress. Nothing is written to disk."""

    async def picture(self, job: Job, painted: Painted) -> None:
        """Save a picture. It is on disk when this returns."""

    async def finish(self, job: Job, last: Painted | None = None) -> None:
        """Complete the job with the pictures saved so far and `last`, all of them or none.

        The result survives a crash of the server once this returns. After a power loss in the next moment the job may
        be painted again.
        """

    async def fail(self, job: Job, failure: Failure, *, again: bool) -> bool:
        """Fail the job; with `again`, requeue it if it has tries left. Returns whether it was requeued."""

    async def release(self, job: Job) -> None:
        """Requeue the job at its old place. This try does not count."""

    async def next_early_stop(self, job: Job) -> EarlyStop:
        """Wait for the next request to end the current picture, or the job, early."""

    async def wait_for_viewer(self, job: Job) -> None:
        """Wait until a client watches previews of this job."""

    async def wait_cancelled(self, job: Job) -> None:
        """Wait until the job no longer belongs to this worker."""


class ClientQueue(Protocol):
    """The queue as clients see it: submit, change, list, await and watch jobs, and read their pictures.

    Methods that take a job's id raise JobNotFound; methods that write raise StorageFailed. A method runs to its end
    even when its caller is cancelled.
    """

    # Submit and change

    async def submit(self, new: NewJob, *, awaited: bool = False) -> Job:
        """Accept a job, or return the one accepted earlier under the same owner and key.

        Returns once the job is durable; with `awaited=True`, before the fsync. That is for clients that get the job's
        id only together with its pictures.

        Raises QueueFull, ShuttingDown, and JobConflict for a key used with another request.
        """

    async def cancel(self, job_id: str) -> Job:
        """Cancel a waiting job at once, a running one at its next step. Finished pictures are kept.

        Raises JobConflict when the job has completed or failed.
        """

    async def retry(self, job_id: str, *, held: bool) -> Job:
        """Requeue a failed or cancelled job. Raises JobConflict, QueueFull, ShuttingDown."""

    async def move(self, job_id: str, position: int) -> Job:
        """Move a waiting job to a position; 1 is the next job. Raises JobConflict when the job is not waiting."""

    async def release_held(self, models: Iterable[str]) -> None:
        """Release the jobs that waited for these models to be downloaded."""

    async def refuse(self, job: Job, failure: Failure) -> None:
        """Fail a waiting job that can never run. Does nothing if the job no longer waits."""

    def end_early(self, job_id: str, how: EarlyStop) -> None:
        """Ask the worker to end a running job, or its current picture, early. Does nothing for other jobs."""

    def pause(self) -> None:
        """Start no more jobs. Running jobs continue."""

    def resume(self) -> None:
        """Start jobs again."""

    # Inspect jobs

    @property
    def is_paused(self) -> bool: ...

    @property
    def closing(self) -> bool:
        """Whether the server is stopping."""

    async def get(self, job_id: str) -> Job: ...

    async def list_jobs(self, status: str | None, before: int | None, limit: int) -> JobPage:
        """Return jobs with a number below `before`, of one public status or of all."""

    async def waiting_jobs(self, limit: int) -> list[Job]:
        """Return the next jobs, in queue order."""

    async def held_jobs(self) -> list[Job]:
        """Return the jobs that wait for their model to be downloaded, in the order of submission."""

    def running_jobs(self) -> list[RunningJob]:
        """Return snapshots of the running jobs, in the order they were started."""

    def count_waiting(self) -> int:
        """Return how many jobs wait."""

    def position(self, job_id: str) -> int | None:
        """Return the job's position: 1 for the next job, 0 while it runs, None once it has ended."""

    def expected_seconds(self, job: Job) -> float | None:
        """Estimate how long a waiting job will run, without loading its model; None when no estimate is possible."""

    # Wait and watch

    async def wait_ended(self, job: Job) -> Job:
        """Wait for the job's end and return the job; return it unfinished if the server stops before."""

    def watch(self, job_id: str, last_id: str | None, *, previews: bool) -> AsyncGenerator[Event, None]:
        """Yield a job's events, up to and including the last one.

        Starts after the event `last_id` if that is still remembered, else with `current_event`. `previews`: request
        previews while watching; without it, events may still have previews. Ends early when the listener is too slow or
        the server stops.
        """

    def watch_all(self, last_id: str | None, *, previews: bool) -> AsyncGenerator[Event, None]:
        """Yield events of all jobs and downloads, after `last_id` if that is still remembered, else new ones only."""

    def current_event(self, job: Job) -> Event:
        """Return the job's current status as an event. For an ended job the event's id is always the same."""

    def report_download(self, job: Job, fraction: float) -> None:
        """Publish the progress of a waiting job's model download, 0 to 1."""

    def request_previews(self) -> None:
        """Request previews of all jobs for a while, for clients that poll."""

    # Pictures

    async def save_inputs(self, job_id: str, pictures: InputPictures) -> Inputs:
        """Save a job's input pictures, before the job is submitted."""

    async def delete_inputs(self, job_id: str) -> None:
        """Delete the input pictures of a job that was not accepted."""

    def read_picture(self, file: str) -> bytes:
        """Read a picture or an input by the file name in its job. Blocking. Raises PictureNotFound."""

    async def search_pictures(self, search: PictureSearch, before: int | None, limit: int) -> PicturePage:
        """Return as many jobs as are needed for `limit` pictures, with numbers below `before`. Jobs are not split."""

    async def delete_picture(self, job_id: str, name: str) -> None:
        """Delete a picture, named by its index, and its file.

        Raises PictureNotFound, and JobConflict while the job runs.
        """

    # Statistics and stored values

    async def totals(self) -> Totals:
        """Return sums since the database was created, including jobs that were deleted since."""

    async def history(self, bucket: BucketLength, count: int) -> list[HistoryBucket]:
        """Return the last `count` periods, oldest first. The last one has not ended yet. Days are in UTC."""

    async def save_value(self, name: str, value: str) -> None:
        """Store a value across restarts."""

    async def load_value(self, name: str) -> str | None:
        """Return the value that was last saved under a name."""

    async def list_deliveries(self, state: str | None, before: int | None, limit: int) -> DeliveryPage:
        """Return webhook deliveries with a number below `before`, of one state or of all."""


class DeliveryQueue(Protocol):
    """The queue as the webhook sender sees it. A job's deliveries are created together with the job."""

    @property
    def closing(self) -> bool:
        """Whether the server is stopping."""

    async def due_deliveries(
        self, *, sending: Collection[int], busy_hosts: Collection[str], limit: int
    ) -> list[Delivery]:
        """Return deliveries to send now: the oldest one of each host, at most `limit`, oldest first.

        Leaves out the deliveries with the numbers `sending`, and those to `busy_hosts`.
        """

    async def record_attempt(self, number: int, *, state: str, next_try: float, status: int | None, error: str) -> None:
        """Record an attempt and its result. `error`: empty when the webhook was accepted."""

    async def wait_for_deliveries(self, seconds: float) -> None:
        """Wait until more deliveries may be due than `due_deliveries` last returned, at most `seconds`."""


class JobQueue(WorkQueue, ClientQueue, DeliveryQueue, Protocol):
    """The whole queue, as the application opens and closes it."""

    async def open(self) -> None:
        """Open the queue and recover unfinished jobs of the last run.

        Raises InvalidRequest when another server uses the queue, and StorageFailed.
        """

    def drain(self) -> None:
        """Accept and start no more jobs, end all streams, and end the waits for jobs that are not running."""

    def stop_waits(self) -> None:
        """End all waits for the end of a job."""

    async def wait_idle(self) -> None:
        """Wait until no job is running."""

    async def close(self) -> None:
        """Requeue the unfinished jobs for the next run, and close the queue."""

    async def prune(self, retention: Retention) -> int:
        """Delete finished jobs beyond the retention limits, with their pictures. Returns how many."""
