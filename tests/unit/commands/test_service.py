"""The service, with programs that record their calls in place of macOS' own."""

import os
import plistlib
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from mflux_api.cli import main
from mflux_api.commands import service
from mflux_api.commands.service_files import render_unit
from mflux_api.settings import Settings
from tests.support.paths import ROOT

STRANGE = 'a & b <c>\'s "1|2\\3" $HOME `x` ü %n'
# Records its arguments. `print` succeeds as often as there are files in $LOADED, and deletes one each time.
LAUNCHCTL = """#!/bin/sh
echo "$*" >>"$CALLS"
[ "$1" = bootstrap ] && exit "${BOOTSTRAP:-0}"
[ "$1" = print ] || exit 0
first=$(ls "$LOADED" | head -n 1)
[ -n "$first" ] || exit 1
rm "$LOADED/$first"
printf 'gui/501/mflux-api = {\\n\\tstate = running\\n\\n\\tpid = 4711\\n}\\n'
"""


class Mac:
    """A Mac as the command sees it: a user with a HOME, and launchctl."""

    def __init__(self, folder: Path) -> None:
        self.user = folder / "user"
        self.calls_file = folder / "calls"
        self.loaded = folder / "loaded"
        self.agent = self.user / "Library" / "LaunchAgents" / "mflux-api.plist"
        for each in (self.user, self.loaded):
            each.mkdir()

    def read_agent(self) -> dict[str, Any]:
        found: dict[str, Any] = plistlib.loads(self.agent.read_bytes())
        return found

    def list_calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines()

    def answer_print(self, times: int) -> None:
        """Let launchctl know the service that many times."""
        for number in range(times):
            (self.loaded / str(number)).touch()


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mac:
    made = Mac(tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "launchctl").write_text(LAUNCHCTL)
    (programs / "launchctl").chmod(0o755)
    variables = {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(made.user)}
    for name, value in {**variables, "CALLS": str(made.calls_file), "LOADED": str(made.loaded)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MFLUX_HOME", raising=False)
    monkeypatch.setattr(service, "SYSTEM", "Darwin")
    monkeypatch.setattr("os.getuid", lambda: 501)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return made


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SYSTEM", "Linux")


def print_agent(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["service", "install", "--print", *arguments]) == 0
    found: dict[str, Any] = plistlib.loads(capsys.readouterr().out.encode())
    return found


@pytest.mark.usefixtures("mac")
def test_the_agent_starts_at_login_and_again_and_may_use_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    found = print_agent(capsys)
    assert (found["Label"], found["KeepAlive"], found["RunAtLoad"]) == ("mflux-api", True, True)
    assert (found["ProcessType"], found["SoftResourceLimits"]) == ("Interactive", {"NumberOfFiles": 4096})


@pytest.mark.usefixtures("mac")
def test_a_running_job_gets_all_of_its_time_to_finish(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_agent(capsys)["ExitTimeOut"] >= Settings().server.shutdown_seconds + 10


@pytest.mark.usefixtures("mac")
def test_in_a_checkout_its_home_is_the_checkout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    found = print_agent(capsys)
    assert found["ProgramArguments"] == [sys.executable, "-P", "-m", "mflux_api", "serve", "--home", str(ROOT)]
    assert found["StandardErrorPath"] == found["StandardOutPath"] == str(ROOT / "logs" / "mflux-api.log")


def test_installed_its_home_is_that_of_the_command(
    mac: Mac, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("mflux_api.home", "mflux_api.commands.service"):
        monkeypatch.setattr(f"{room}.find_checkout", lambda: None)
    assert print_agent(capsys)["ProgramArguments"][-1] == str(mac.user / ".mflux-api")


@pytest.mark.usefixtures("mac")
def test_any_path_comes_through_whole(capsys: pytest.CaptureFixture[str]) -> None:
    found = print_agent(capsys, "--home", f"/Users/{STRANGE}")
    assert found["ProgramArguments"][-1] == f"/Users/{STRANGE}"
    assert found["StandardErrorPath"] == f"/Users/{STRANGE}/logs/mflux-api.log"


def test_printing_writes_nothing(mac: Mac, capsys: pytest.CaptureFixture[str]) -> None:
    print_agent(capsys, "--home", str(mac.user / "home"))
    assert list(mac.user.iterdir()) == []


def test_installing_writes_the_agent_and_loads_it(mac: Mac, capsys: pytest.CaptureFixture[str]) -> None:
    home = mac.user / STRANGE
    assert main(["service", "install", "--home", str(home)]) == 0
    assert mac.read_agent()["ProgramArguments"][-1] == str(home)
    assert (home / "logs").is_dir()
    assert str(home / "logs" / "mflux-api.log") in capsys.readouterr().out
    expected = ["bootout gui/501/mflux-api", "print gui/501/mflux-api", f"bootstrap gui/501 {mac.agent}"]
    assert mac.list_calls() == expected


def test_installing_again_waits_for_the_running_job(mac: Mac) -> None:
    mac.answer_print(65)
    assert main(["service", "install", "--home", str(mac.user / "home")]) == 0
    assert mac.list_calls().count("print gui/501/mflux-api") == 66
    assert mac.list_calls()[-1].startswith("bootstrap")


def test_a_server_that_does_not_stop_is_left_alone(mac: Mac, capsys: pytest.CaptureFixture[str]) -> None:
    mac.answer_print(100)
    assert main(["service", "install", "--home", str(mac.user / "home")]) == 1
    assert "does not stop" in capsys.readouterr().err
    assert not mac.agent.exists()


def test_an_agent_that_cannot_be_loaded_is_a_failure(
    mac: Mac, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOOTSTRAP", "5")
    assert main(["service", "install", "--home", str(mac.user / "home")]) == 1
    assert f"cannot load {mac.agent}" in capsys.readouterr().err


def test_nothing_is_installed_without_the_package(
    mac: Mac, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false" if Path("/bin/false").exists() else "/usr/bin/false")
    assert main(["service", "install"]) == 1
    assert "make demo" in capsys.readouterr().err
    assert list(mac.user.iterdir()) == []


@pytest.mark.parametrize("action", ["install", "uninstall", "status", "logs"])
def test_root_is_refused(
    mac: Mac, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], action: str
) -> None:
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert main(["service", action]) == 1
    assert "without sudo" in capsys.readouterr().err
    assert list(mac.user.iterdir()) == []


def test_uninstalling_unloads_and_deletes_the_agent(mac: Mac) -> None:
    mac.agent.parent.mkdir(parents=True)
    mac.agent.touch()
    assert main(["service", "uninstall"]) == 0
    assert not mac.agent.exists()
    assert mac.list_calls()[0] == "bootout gui/501/mflux-api"


def test_the_status_says_whether_the_server_runs(mac: Mac, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "status"]) == 1
    assert capsys.readouterr().out == "not installed\n"
    mac.answer_print(1)
    assert main(["service", "status"]) == 0
    assert capsys.readouterr().out.startswith("running, process 4711\n")


def test_the_last_lines_of_the_log_of_the_installed_agent_are_printed(
    mac: Mac, capfd: pytest.CaptureFixture[str]
) -> None:
    home = mac.user / "home"
    assert main(["service", "install", "--home", str(home)]) == 0
    (home / "logs" / "mflux-api.log").write_text("one\ntwo\nthree\n")
    capfd.readouterr()
    assert main(["service", "logs", "--lines", "2", "--no-follow"]) == 0
    assert capfd.readouterr().out == "two\nthree\n"


def test_a_log_that_is_not_there_is_named(mac: Mac, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "logs", "--home", str(mac.user / "home")]) == 1
    assert f"There is no log at {mac.user / 'home' / 'logs' / 'mflux-api.log'}." in capsys.readouterr().err


@pytest.mark.usefixtures("linux")
@pytest.mark.parametrize("action", ["install", "uninstall", "status", "logs"])
def test_other_systems_are_told_that_launchd_is_macos_only(capsys: pytest.CaptureFixture[str], action: str) -> None:
    assert main(["service", action]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: launchd is part of macOS.")
    assert "systemctl" in captured.err or "journalctl" in captured.err
    assert captured.out.startswith("[Unit]\n") == (action == "install")


@pytest.mark.usefixtures("linux")
def test_the_unit_can_be_printed_without_a_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["service", "install", "--print", "--home", str(tmp_path)]) == 0
    unit = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines() if "=" in line)
    assert shlex.split(unit["ExecStart"]) == [sys.executable, "-P", "-m", "mflux_api", "serve", "--home", str(tmp_path)]
    assert int(unit["TimeoutStopSec"]) >= Settings().server.shutdown_seconds + 10
    assert unit["KillMode"] == "mixed"
    assert not list(tmp_path.iterdir())


def test_systemd_reads_words_as_they_are() -> None:
    unit = render_unit(["/bin/x", 'a "b" \\ $c 100%'])
    assert 'ExecStart=/bin/x "a \\"b\\" \\\\ $$c 100%%"\n' in unit


def test_an_unknown_action_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["service", "frobnicate"])
    assert "invalid choice: 'frobnicate'" in capsys.readouterr().err
