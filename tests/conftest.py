"""Fixtures for all tests: shared servers, the embedded model loaded once, copies of its folder, a browser."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, BrowserContext, sync_playwright

import mflux_api
from mflux_api.engine.model import Model, load_model
from mflux_api.models.registry import EMBEDDED_MODELS_DIR
from tests.support.browsers import FLAGS, INSTALL, find_browser
from tests.support.paths import ROOT
from tests.support.servers import furnished, guarded, server, small, tight, trusting

__all__ = ["furnished", "guarded", "server", "small", "tight", "trusting"]

# No deadline: a test may be slow on a busy machine.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# tools/node installs the JavaScript clients and writes this file last.
NODE_CLIENTS = Path(sys.prefix) / "node" / "installed.json"
# With "required" the browser tests always run. Otherwise they are deselected without a browser; the header reports it.
WITHOUT_BROWSER = os.environ.get("MFLUX_TEST_BROWSER") != "required" and find_browser() is None
WITHOUT_NODE = os.environ.get("MFLUX_TEST_NODE") != "required" and not NODE_CLIENTS.is_file()
LEFT_OUT = {
    "test_browser.py": WITHOUT_BROWSER,
    # axe-core comes with the JavaScript clients.
    "test_accessibility.py": WITHOUT_BROWSER or WITHOUT_NODE,
    "test_browser_examples.py": WITHOUT_BROWSER,
    "test_node_clients.py": WITHOUT_NODE,
    "test_node_examples.py": WITHOUT_NODE,
    # All tests in tests/page.
    "page": WITHOUT_BROWSER,
}
TINY = EMBEDDED_MODELS_DIR / "flux2-tiny"
# Fixture -> marker of the tests that use it, directly or through another fixture.
# `make quick` deselects these markers.
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
def tiny() -> Model:
    return load_model("flux2-tiny")


@pytest.fixture(scope="session")
def tiny_base() -> Model:
    return load_model("flux2-tiny-base")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the embedded model's folder that the test may change."""
    return Path(shutil.copytree(TINY, tmp_path / "checkpoint", ignore=shutil.ignore_patterns("samples", "*.md")))


# Per module: Playwright keeps an event loop in this thread, and tests of other modules run their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_browser()
    assert path is not None, INSTALL
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    context.close()


def pytest_configure() -> None:
    """Make sure that this tree is tested, in this process and in those that tests start from any folder.

    `.venv` has a package installed too, which may be another tree's where several share it.
    """
    if not Path(str(mflux_api.__file__)).is_relative_to(ROOT):
        raise pytest.UsageError(f"The tests of {ROOT} would test {mflux_api.__file__}. Run them from {ROOT}.")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def pytest_report_header() -> list[str]:
    browser = [f"{INSTALL} The tests that need one are left out."] if WITHOUT_BROWSER else []
    node = ["No node with npm was found when .venv was set up. The tests of JavaScript clients are left out."]
    return [*browser, *(node if WITHOUT_NODE else [])]


# First, so that -m sees the markers added here.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if LEFT_OUT.get(item.path.name) or LEFT_OUT.get(item.path.parent.name)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    for item in items:
        for mark in {STARTED_BY[name] for name in getattr(item, "fixturenames", ()) if name in STARTED_BY}:
            item.add_marker(mark)
