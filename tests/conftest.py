"""Fixtures for all tests: shared servers, the embedded model loaded once, copies of its folder, a browser."""

import importlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

import mflux_api
from mflux_api.models.registry import EMBEDDED_MODELS_DIR
from tests.support.browsers import FLAGS, INSTALL, find_browser
from tests.support.paths import ROOT
from tests.support.servers import furnished, guarded, server, small, tight, trusting
from tests.support.suite_report import MISSING, SuiteReport

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

    from mflux_api.engine.model import Model

__all__ = ["furnished", "guarded", "server", "small", "tight", "trusting"]

# No deadline: a test may be slow on a busy machine. `make test` chooses "fast".
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("full", PATIENT)
settings.register_profile("fast", PATIENT, max_examples=20)
settings.load_profile("full")

# tools/node installs the JavaScript clients and writes this file last.
NODE_CLIENTS = Path(sys.prefix) / "node" / "installed.json"
NO_NODE = "without node and npm, which were not found when .venv was set up"
TINY = EMBEDDED_MODELS_DIR / "flux2-tiny"
# Fixture -> marker of the tests that use it, directly or through another fixture.
# Tests that start a server or browser without these fixtures carry the marker themselves or in `pytestmark`.
STARTED_BY = {
    "server": "system",
    "live": "system",
    "trusting": "system",
    "furnished": "system",
    "guarded": "system",
    "small": "system",
    "tight": "system",
    "painter": "system",
    "browser": "browser",
}


@pytest.fixture(scope="session")
def tiny() -> "Model":
    from mflux_api.engine.model import load_model

    return load_model("flux2-tiny")


@pytest.fixture(scope="session")
def tiny_base() -> "Model":
    from mflux_api.engine.model import load_model

    return load_model("flux2-tiny-base")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the embedded model's folder that the test may change."""
    return Path(shutil.copytree(TINY, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("samples", "*.md")))


# Per module: Playwright keeps an event loop in this thread, and tests of other modules run their own.
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    path = find_browser()
    assert path is not None, INSTALL
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def context(browser: "Browser") -> "Iterator[BrowserContext]":
    context = browser.new_context()
    yield context
    context.close()


def pytest_configure(config: pytest.Config) -> None:
    """Make sure that this tree is tested, in this process and in those that tests start from any folder.

    `.venv` has a package installed too, which may be another tree's where several share it.
    """
    if not Path(str(mflux_api.__file__)).is_relative_to(ROOT):
        raise pytest.UsageError(f"The tests of {ROOT} would test {mflux_api.__file__}. Run them from {ROOT}.")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    # One thread for each process: several workers and their engines share the cores, and idle threads of OpenBLAS spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Loads OpenBLAS. Some tests import MLX first, which would then take its own slow BLAS.
    importlib.import_module("mflux_api.engine")
    config.pluginmanager.register(SuiteReport(config))


def pytest_itemcollected(item: pytest.Item) -> None:
    for mark in {STARTED_BY[name] for name in getattr(item, "fixturenames", ()) if name in STARTED_BY}:
        item.add_marker(mark)


# Last, so that what -m leaves out is not said to be missing.
@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need a browser or node where there is none.

    With MFLUX_TEST_BROWSER or MFLUX_TEST_NODE set to "required" they run, and fail.
    """
    missing = {}
    if os.environ.get("MFLUX_TEST_BROWSER") != "required" and find_browser() is None:
        missing["browser"] = f"of the page and of clients in a browser. {INSTALL}"
    if os.environ.get("MFLUX_TEST_NODE") != "required" and not NODE_CLIENTS.is_file():
        missing["node"] = NO_NODE
    for item in items:
        for mark, reason in missing.items():
            if item.get_closest_marker(mark):
                item.stash[MISSING] = reason
    left_out = [item for item in items if MISSING in item.stash]
    items[:] = [item for item in items if MISSING not in item.stash]
    config.hook.pytest_deselected(items=left_out)
