"""Shared models: the embedded one, loaded once, and copies of its folder to damage."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from mflux_api.catalogue.models import EMBEDDED
from mflux_api.engine.model import Model, load_model
from tests.browsers import INSTALL, find_browser

# A busy machine is slow, not wrong.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# "required": the tests of the browser run whatever happens. Else they are left out where there is none, and it is said.
WITHOUT_BROWSER = os.environ.get("MFLUX_TEST_BROWSER") != "required" and find_browser() is None
TINY = EMBEDDED / "flux2-tiny"


@pytest.fixture(scope="session")
def tiny() -> Model:
    return load_model("flux2-tiny")


@pytest.fixture(scope="session")
def tiny_base() -> Model:
    return load_model("flux2-tiny-base")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the embedded model's folder, to change at will."""
    return Path(shutil.copytree(TINY, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("samples", "*.md")))


def pytest_report_header() -> str | None:
    return f"{INSTALL} The tests that need one are left out." if WITHOUT_BROWSER else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if WITHOUT_BROWSER and item.path.name == "test_browser.py"]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
