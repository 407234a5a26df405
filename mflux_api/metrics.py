"""Prometheus metrics, in a registry of their own."""

from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mflux_api.version import __version__

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Upper bounds in seconds, from the smallest picture on the fastest Mac to the largest on a CPU.
STEP_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
JOB_BUCKETS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
HTTP_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0)
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """One server's metrics. Every method may be called from any thread."""

    CONTENT_TYPE = CONTENT_TYPE

    def __init__(self) -> None:
        home = self._registry = CollectorRegistry()
        self._jobs = Counter("mflux_jobs_total", "Jobs by outcome.", ["outcome", "model"], registry=home)
        self._queue = Gauge("mflux_queue_depth", "Waiting jobs.", registry=home)
        self._steps = Histogram(
            "mflux_step_seconds", "Time of a denoising step.", ["model"], registry=home, buckets=STEP_BUCKETS
        )
        self._job_seconds = Histogram(
            "mflux_job_seconds",
            "Time of a completed job, from start to end.",
            ["model"],
            registry=home,
            buckets=JOB_BUCKETS,
        )
        self._pictures = Counter("mflux_pictures_total", "Pictures painted.", ["model"], registry=home)
        self._memory = Gauge("mflux_engine_memory_bytes", "Memory held by MLX.", ["kind"], registry=home)
        self._restarts = Counter("mflux_engine_restarts_total", "Restarts of the engine process.", registry=home)
        self._tasks = Gauge(
            "mflux_task_restarting", "1 while a failed background task waits for its restart.", ["task"], registry=home
        )
        self._task_restarts = Gauge(
            "mflux_task_restarts", "How often a background task failed and was started again.", ["task"], registry=home
        )
        self._http = Histogram(
            "mflux_http_seconds",
            "Time from a request to the first byte of its reply.",
            ["method", "route", "status"],
            registry=home,
            buckets=HTTP_BUCKETS,
        )
        self._downloads = Counter("mflux_downloads_bytes_total", "Bytes of models downloaded.", registry=home)
        Info("mflux", "This server.", registry=home).info({"version": __version__})

    def count_job(self, outcome: str, model: str, seconds: float | None = None) -> None:
        """Count a job. `outcome`: completed, failed, cancelled or retried. Only completed jobs are timed."""
        self._jobs.labels(outcome, model).inc()
        if outcome == "completed" and seconds is not None:
            self._job_seconds.labels(model).observe(seconds)

    def observe_step(self, model: str, seconds: float) -> None:
        self._steps.labels(model).observe(seconds)

    def count_picture(self, model: str) -> None:
        self._pictures.labels(model).inc()

    def set_queue_depth(self, depth: int) -> None:
        self._queue.set(depth)

    def set_queue_depth_source(self, depth: Callable[[], int]) -> None:
        """Call `depth` whenever the metrics are read, instead of storing a value."""
        self._queue.set_function(depth)

    def set_engine_memory(self, active: int, cached: int, peak: int) -> None:
        for kind, size in {"active": active, "cached": cached, "peak": peak}.items():
            self._memory.labels(kind).set(size)

    def set_task(self, name: str, *, restarting: bool, restarts: int) -> None:
        self._tasks.labels(name).set(restarting)
        self._task_restarts.labels(name).set(restarts)

    def count_engine_restart(self) -> None:
        self._restarts.inc()

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Record a request. `route` must be the matched pattern, not the path: every new label value is kept."""
        known = method if method in METHODS else "other"
        self._http.labels(known, route, status).observe(seconds)

    def count_downloaded_bytes(self, size: int) -> None:
        self._downloads.inc(size)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format, whose media type is CONTENT_TYPE."""
        return generate_latest(_WithoutCreatedSeries(self._registry))


class _WithoutCreatedSeries(Collector):
    """Filter out the `..._created` series of counters and histograms.

    prometheus_client can disable them only for all registries at once.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
