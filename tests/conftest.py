"""Shared models: the embedded one, loaded once, and copies of its folder to damage."""

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from mflux_api.catalogue.models import EMBEDDED
from mflux_api.engine.model import Model, load_model

# A busy machine is slow, not wrong.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

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
