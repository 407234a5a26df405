"""Publish events of jobs, and watch the events of one job or of all."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import nullcontext

from mflux_api.events import Event, EventBus
from mflux_api.jobs.job import Job, State, public_status
from mflux_api.jobs.queue import END_EVENTS, RunningJob
from mflux_api.jobs.subscribers import PreviewViewers

LAST_EVENTS = frozenset(END_EVENTS.values())


class JobEvents:
    """Publishes events of jobs, in the order of the calls, and lets clients watch them."""

    def __init__(self, events: EventBus, viewers: PreviewViewers) -> None:
        self.events = events
        self.viewers = viewers

    # Publish

    def publish_queued(self, job: Job, position: int | None) -> None:
        self.events.forget_progress(job.id)
        data = {"job_id": job.id, "status": public_status(job.state), "position": position}
        self.events.publish(job.id, "queued", data)

    def publish_moved(self, job_id: str, position: int | None) -> None:
        self.events.publish(job_id, "moved", {"job_id": job_id, "position": position})

    def publish_started(self, job: Job) -> None:
        self.events.publish(job.id, "started", {"job_id": job.id, "status": job.state})

    def publish_progress(self, running: RunningJob) -> None:
        progress, left = running.progress, running.seconds_left
        assert progress is not None
        data = {
            "job_id": running.job.id,
            "status": public_status(State.GENERATING),
            "progress": running.fraction,
            "stage": progress.stage,
            "step": progress.step,
            "steps": progress.steps,
            "image": progress.image,
            "of": progress.of,
            "eta": None if left is None else round(left, 2),
        }
        self.events.publish(running.job.id, "progress", data, progress.preview)

    def publish_download(self, job: Job, fraction: float) -> None:
        """Publish the progress of a waiting job's model download, 0 to 1."""
        data = {"job_id": job.id, "status": public_status(job.state), "progress": 0.0, "stage": "downloading"}
        self.events.publish(job.id, "progress", {**data, "download": round(fraction, 4)})

    def publish_end(self, job: Job) -> None:
        self.events.forget_progress(job.id)
        self.events.publish(job.id, END_EVENTS[job.state], {"job_id": job.id, "status": public_status(job.state)})

    def publish_paused(self, paused: bool) -> None:
        self.events.publish("", "paused", {"paused": paused})

    def close(self) -> None:
        """End the streams of all listeners, because the server stops."""
        self.events.close()

    # Watch

    def current_event(self, job: Job, position: int | None) -> Event:
        """Return the job's current status as an event."""
        if job.is_final:
            data = {"job_id": job.id, "status": str(public_status(job.state))}
            return Event(f"end-{job.id}-{job.attempts}", job.id, END_EVENTS[job.state], data)
        latest = self.events.get_latest_progress(job.id)
        if latest is not None:
            return latest
        now = {"job_id": job.id, "status": public_status(job.state), "progress": 0.0, "position": position}
        return Event(f"now-{job.id}", job.id, "progress", now)

    async def watch(
        self,
        job_id: str,
        last_id: str | None,
        *,
        previews: bool,
        find: Callable[[str], Awaitable[Job]],
        position: Callable[[str], int | None],
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of one job, as specified by `ClientQueue.watch`."""
        viewer = self.viewers.watching(job_id) if previews else nullcontext()
        with viewer, self.events.listen(job_id) as box:
            job = await find(job_id)
            missed = self.events.list_since(last_id, job_id)
            seen = set()
            for event in missed if missed is not None else [self.current_event(job, position(job_id))]:
                seen.add(event.id)
                yield event
                if event.name in LAST_EVENTS:
                    return
            if job.is_final:
                yield self.current_event(job, position(job_id))
                return
            async for event in box:
                if event.id not in seen:
                    yield event
                if event.name in LAST_EVENTS:
                    return

    async def watch_all(self, last_id: str | None, *, previews: bool) -> AsyncGenerator[Event, None]:
        """Yield the events of all jobs and downloads."""
        viewer = self.viewers.watching(None) if previews else nullcontext()
        with viewer, self.events.listen(None) as box:
            for event in self.events.list_since(last_id, None) or []:
                yield event
            async for event in box:
                yield event
