"""Choose the parameters that `make test` runs."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(values: Iterable[Any], *fast: Any) -> list[Any]:
    """Return the values as parameters of a test, all but `fast` marked slow: `make test-all` runs them."""
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]
