import pytest

pytest.register_assert_rewrite(
    *(f"tests.jobs.{name}_contract" for name in ("client", "picture", "watch", "worker")),
    "tests.jobs.worker_harness",
)
