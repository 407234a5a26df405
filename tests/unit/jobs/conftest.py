import pytest

pytest.register_assert_rewrite(
    *(f"tests.unit.jobs.{name}_contract" for name in ("client", "picture", "watch", "worker")),
    "tests.unit.jobs.worker_harness",
)
