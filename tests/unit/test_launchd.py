"""The launchd script, run unchanged, with stubs that record calls in place of macOS' own programs."""

import os
import plistlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mflux_api.settings import Settings

TOOLS = Path(__file__).parents[2] / "tools" / "launchd"
STRANGE = 'a & b <c>\'s "1|2\\3" $HOME `x` ü'
RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
[ "$1" != print ]
"""


def install(*arguments: str, script: Path = TOOLS / "install", **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    return subprocess.run([script, *arguments], capture_output=True, text=True, check=False, env=environment)


def render_plist(*, script: Path = TOOLS / "install", home: str = "/Users/me") -> dict[str, Any]:
    shown = install("--print", script=script, HOME=home)
    assert shown.returncode == 0, shown.stderr
    found: dict[str, Any] = plistlib.loads(shown.stdout.encode())
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a folder whose name has special characters of the shell, sed and XML."""
    root = tmp_path / STRANGE / "project"
    shutil.copytree(TOOLS, root / "tools" / "launchd")
    return root


@pytest.fixture
def mac(tmp_path: Path) -> dict[str, str]:
    """Environment in which `uname` prints Darwin and `launchctl` records its arguments."""
    programs = tmp_path / "bin"
    programs.mkdir()
    written = {"launchctl": RECORDER, "uname": "#!/bin/sh\necho Darwin\n", "id": "#!/bin/sh\necho 501\n"}
    for name, text in written.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    return {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "HOME": str(home)}


def test_the_template_is_a_property_list() -> None:
    found = plistlib.loads((TOOLS / "mflux-api.plist").read_bytes())
    assert found["Label"] == "mflux-api"
    assert (found["KeepAlive"], found["RunAtLoad"]) == (True, True)


def test_the_paths_are_filled_in() -> None:
    root, found = str(TOOLS.parent.parent), render_plist()
    assert found["ProgramArguments"] == [f"{root}/.venv/bin/python", f"{root}/api_main.py"]
    assert found["WorkingDirectory"] == root
    assert found["StandardErrorPath"] == found["StandardOutPath"] == "/Users/me/Library/Logs/mflux-api.log"
    assert "@" not in str(found)


def test_a_running_job_gets_all_of_its_time_to_finish() -> None:
    assert render_plist()["ExitTimeOut"] >= Settings().server.shutdown_seconds + 10


def test_any_path_comes_through_whole(project: Path) -> None:
    found = render_plist(script=project / "tools" / "launchd" / "install", home=f"/Users/{STRANGE}")
    assert found["WorkingDirectory"] == str(project)
    assert found["StandardErrorPath"] == f"/Users/{STRANGE}/Library/Logs/mflux-api.log"


def test_printing_writes_nothing(tmp_path: Path) -> None:
    render_plist(home=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "darwin", reason="launchd is there")
@pytest.mark.parametrize("arguments", [(), ("--remove",)])
def test_other_systems_are_told_that_launchd_is_macos_only(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    refused = install(*arguments, HOME=str(tmp_path))
    assert refused.returncode == 1
    assert "launchd is part of macOS" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_is_refused() -> None:
    refused = install("--frobnicate")
    assert refused.returncode == 1
    assert "Usage" in refused.stderr


def test_installing_writes_the_agent_and_loads_it(project: Path, mac: dict[str, str]) -> None:
    python = project / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    done = install(script=project / "tools" / "launchd" / "install", **mac)
    assert done.returncode == 0, done.stderr
    agent = Path(mac["HOME"]) / "Library" / "LaunchAgents" / "mflux-api.plist"
    assert plistlib.loads(agent.read_bytes())["WorkingDirectory"] == str(project)
    assert (Path(mac["HOME"]) / "Library" / "Logs").is_dir()
    assert Path(mac["CALLS"]).read_text().splitlines() == [
        "launchctl bootout gui/501/mflux-api",
        "launchctl print gui/501/mflux-api",
        f"launchctl bootstrap gui/501 {agent}",
    ]


def test_nothing_is_installed_before_there_is_a_python(project: Path, mac: dict[str, str]) -> None:
    refused = install(script=project / "tools" / "launchd" / "install", **mac)
    assert refused.returncode == 1
    assert "make demo" in refused.stderr
    assert list(Path(mac["HOME"]).iterdir()) == []


def test_removing_unloads_and_deletes_the_agent(mac: dict[str, str]) -> None:
    agent = Path(mac["HOME"]) / "Library" / "LaunchAgents" / "mflux-api.plist"
    agent.parent.mkdir(parents=True)
    agent.touch()
    assert install("--remove", script=TOOLS / "install", **mac).returncode == 0
    assert not agent.exists()
    assert Path(mac["CALLS"]).read_text().startswith("launchctl bootout gui/501/mflux-api\n")
