import pytest
from prometheus_client.parser import text_string_to_metric_families

from mflux_api.metrics import CONTENT_TYPE, Metrics
from mflux_api.version import __version__


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return one sample as Prometheus reads it; None if it is missing."""
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def test_a_job_counts_by_outcome_and_model(metrics: Metrics) -> None:
    metrics.count_job("completed", "flux2-tiny", 2.0)
    metrics.count_job("completed", "flux2-tiny", 4.0)
    metrics.count_job("failed", "flux2-tiny", None)
    assert value(metrics, "mflux_jobs_total", outcome="completed", model="flux2-tiny") == 2
    assert value(metrics, "mflux_jobs_total", outcome="failed", model="flux2-tiny") == 1
    assert value(metrics, "mflux_jobs_total", outcome="cancelled", model="flux2-tiny") is None


def test_only_a_completed_job_is_timed(metrics: Metrics) -> None:
    metrics.count_job("completed", "flux2-tiny", 2.0)
    metrics.count_job("completed", "flux2-tiny")
    for outcome in ("failed", "cancelled", "retried"):
        metrics.count_job(outcome, "flux2-tiny", 500.0)
    assert value(metrics, "mflux_job_seconds_count", model="flux2-tiny") == 1
    assert value(metrics, "mflux_job_seconds_sum", model="flux2-tiny") == 2


def test_a_step_and_a_picture_count_for_their_model(metrics: Metrics) -> None:
    metrics.observe_step("flux2-tiny", 0.02)
    metrics.observe_step("flux2-klein-4b", 3.0)
    metrics.count_picture("flux2-klein-4b")
    assert value(metrics, "mflux_step_seconds_bucket", model="flux2-tiny", le="0.025") == 1
    assert value(metrics, "mflux_step_seconds_sum", model="flux2-klein-4b") == 3
    assert value(metrics, "mflux_pictures_total", model="flux2-klein-4b") == 1
    assert value(metrics, "mflux_pictures_total", model="flux2-tiny") is None


def test_a_fast_request_is_told_from_a_slow_one_from_a_millisecond_up(metrics: Metrics) -> None:
    labels = {"method": "GET", "route": "/health", "status": "200"}
    metrics.observe_request("GET", "/health", 200, 0.0008)
    metrics.observe_request("GET", "/health", 200, 0.002)
    assert value(metrics, "mflux_http_seconds_bucket", le="0.001", **labels) == 1
    assert value(metrics, "mflux_http_seconds_bucket", le="0.0025", **labels) == 2


def test_invented_methods_share_one_series(metrics: Metrics) -> None:
    for number in range(50):
        metrics.observe_request(f"M{number}", "other", 405, 0.001)
    assert value(metrics, "mflux_http_seconds_count", method="other", route="other", status="405") == 50
    assert b"M7" not in metrics.render()


def test_the_queue_shows_the_last_depth_it_was_told(metrics: Metrics) -> None:
    metrics.set_queue_depth(7)
    metrics.set_queue_depth(3)
    assert value(metrics, "mflux_queue_depth") == 3


def test_a_watched_queue_is_asked_at_every_reading(metrics: Metrics) -> None:
    line: list[int] = []
    metrics.set_queue_depth_source(lambda: len(line))
    assert value(metrics, "mflux_queue_depth") == 0
    line.append(1)
    assert value(metrics, "mflux_queue_depth") == 1


def test_the_engines_memory_has_three_kinds(metrics: Metrics) -> None:
    metrics.set_engine_memory(active=5, cached=6, peak=7)
    found = {kind: value(metrics, "mflux_engine_memory_bytes", kind=kind) for kind in ("active", "cached", "peak")}
    assert found == {"active": 5, "cached": 6, "peak": 7}


def test_restarts_and_downloads_are_there_before_the_first(metrics: Metrics) -> None:
    assert value(metrics, "mflux_engine_restarts_total") == 0
    assert value(metrics, "mflux_downloads_bytes_total") == 0
    metrics.count_engine_restart()
    metrics.count_downloaded_bytes(1_000_000)
    metrics.count_downloaded_bytes(24)
    assert value(metrics, "mflux_engine_restarts_total") == 1
    assert value(metrics, "mflux_downloads_bytes_total") == 1_000_024


def test_the_version_is_a_label(metrics: Metrics) -> None:
    assert value(metrics, "mflux_info", version=__version__) == 1


def test_two_servers_in_one_process_count_apart(metrics: Metrics) -> None:
    Metrics().count_engine_restart()
    assert value(metrics, "mflux_engine_restarts_total") == 0


def test_a_strange_model_name_breaks_no_line(metrics: Metrics) -> None:
    name = 'a "b"\nmflux_pictures_total 9\\'
    metrics.count_picture(name)
    assert value(metrics, "mflux_pictures_total", model=name) == 1
    assert value(metrics, "mflux_pictures_total") is None


def test_no_series_says_when_it_was_made(metrics: Metrics) -> None:
    metrics.count_job("completed", "flux2-tiny", 2.0)
    assert b"_created" not in metrics.render()
    assert metrics.render() == metrics.render()


def test_the_content_type_is_the_text_format() -> None:
    assert CONTENT_TYPE.startswith("text/plain")
    assert Metrics.CONTENT_TYPE == CONTENT_TYPE
