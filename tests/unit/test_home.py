"""The home folder, as found by the commands and the library."""

from pathlib import Path

import pytest

from mflux_api.cli import main
from mflux_api.engine.model import load_model
from mflux_api.errors import InvalidSetting, ModelNotFound
from mflux_api.home import find_home


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a home's files, and no variable."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MFLUX_HOME", raising=False)
    return tmp_path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Act as the installed package, with a HOME."""
    monkeypatch.setattr("mflux_api.home.find_checkout", lambda: None)
    monkeypatch.setenv("HOME", "/home/alice")


def test_in_a_checkout_it_is_the_working_directory() -> None:
    assert find_home() == Path()


@pytest.mark.usefixtures("installed")
def test_an_installed_package_has_a_folder_in_the_users_home() -> None:
    assert find_home() == Path("/home/alice/.mflux-api")


@pytest.mark.usefixtures("installed")
def test_the_variable_wins_over_the_default_and_the_option_over_the_variable(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MFLUX_HOME", "")
    assert find_home() == Path("/home/alice/.mflux-api")
    monkeypatch.setenv("MFLUX_HOME", "~/pictures")
    assert find_home() == Path("/home/alice/pictures")
    assert find_home(Path("here")) == elsewhere / "here"


def test_the_home_of_an_unknown_user_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="no user whose home ~nobody-here/x"):
        find_home(Path("~nobody-here/x"))


def test_the_settings_name_the_home_and_are_read_from_it(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "config.yaml").write_text("server: {port: 1234}")
    assert main(["settings", "--home", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"# home: {elsewhere / 'mine'}"
    assert f"server.port = 1234 ({elsewhere / 'mine' / 'config.yaml'})" in lines
    assert f'generation.output_dir = "{elsewhere / "mine" / "output"}" (default)' in lines


def test_pictures_and_models_of_the_commands_lie_in_the_home(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paint = ["generate", "x", "--size", "64x64", "--steps", "1", "--seed", "7"]
    assert main([*paint, "--home", "mine"]) == 0
    assert capsys.readouterr().out == f"{elsewhere / 'mine' / 'output' / 'flux2-tiny_x_seed7.png'}\n"
    assert main([*paint, "--home", "mine", "--lora", "style"]) == 1
    assert f"looked in {elsewhere / 'mine' / 'models' / 'loras'}" in capsys.readouterr().err
    assert main([*paint, "--home", "mine", "--output", "there"]) == 0
    assert capsys.readouterr().out == "there/flux2-tiny_x_seed7.png\n"


def test_the_library_finds_its_models_in_the_home(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MFLUX_HOME", str(elsewhere / "mine"))
    with pytest.raises(ModelNotFound, match=r"No GGUF file under .*/mine/models says q8"):
        load_model(gguf_quant="q8")
