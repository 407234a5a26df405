"""At the end of a run, say which tests were left out and why, and which files took longest. Works with xdist."""

from collections import Counter, defaultdict
from typing import Any, Final

import pytest

SLOWEST = 10
# Markers that `make test` leaves to `make test-all`.
LEFT_TO_TEST_ALL = ("slow", "browser", "node")
# Why a test cannot run on this machine. Set by tests/conftest.py.
MISSING: Final = pytest.StashKey[str]()


class SuiteReport:
    """Counts the tests left out by their reason, and the seconds of each file, on all workers together."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.left_out: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        for item in items:
            if reason := self._find_reason(item):
                self.left_out[reason] += 1

    def _find_reason(self, item: pytest.Item) -> str | None:
        """Return why a test was left out. None where the caller asked for other tests, by name or otherwise."""
        if missing := item.stash.get(MISSING, None):
            return missing
        expression = self.config.option.markexpr
        marks = [mark for mark in LEFT_TO_TEST_ALL if mark in expression and item.get_closest_marker(mark)]
        return f"marked {marks[0]}: make test-all runs them" if marks and not self.config.option.keyword else None

    def pytest_sessionfinish(self) -> None:
        # A worker of xdist sends its counts to the process that prints.
        output: dict[str, Any] | None = getattr(self.config, "workeroutput", None)
        if output is not None:
            output["left_out"] = dict(self.left_out)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # Each worker collects all tests, so their counts are the same.
        self.left_out |= Counter(getattr(node, "workeroutput", {}).get("left_out", {}))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid.partition("::")[0]] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for reason, count in self.left_out.most_common():
            terminalreporter.write_line(f"left out: {count:,} tests {reason}")
        if len(self.seconds) > 1:
            total = sum(self.seconds.values())
            terminalreporter.write_line(f"slowest of {len(self.seconds)} files, {total:.0f} s in all:")
            for file, seconds in sorted(self.seconds.items(), key=lambda pair: -pair[1])[:SLOWEST]:
                terminalreporter.write_line(f"{seconds:7.1f} s  {file}")
