"""The built package, installed into an environment of its own and used from a folder that is not the checkout."""

import base64
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import mflux_api
from tests.support.live_server import LiveServer
from tests.support.paths import ROOT

pytestmark = [pytest.mark.system, pytest.mark.slow]

EMBEDDED = "mflux_api/data/models/flux2-tiny/transformer/diffusion_pytorch_model.safetensors"
QUICK = ["--size", "64x64", "--steps", "1", "--seed", "7"]
PICTURE = "flux2-tiny_a-red-circle_seed7.png"


@dataclass(frozen=True)
class Installed:
    """The installed command. `folder`: where it is run. `environ`: its environment, with a HOME of its own."""

    python: Path
    program: Path
    folder: Path
    environ: dict[str, str]

    @property
    def home(self) -> Path:
        return Path(self.environ["HOME"]) / ".mflux-api"

    @contextmanager
    def serve(self) -> Iterator[LiveServer]:
        """Run the server on a free port and kill it at the end."""
        command = [str(self.program), "serve", "--host", "127.0.0.1", "--port", "0"]
        process = subprocess.Popen(command, cwd=self.folder, env=self.environ, stderr=subprocess.PIPE, text=True)
        live = LiveServer(process, self.home / "output")
        try:
            yield live
        finally:
            live.close()

    def run(self, *arguments: str) -> str:
        """Run a command, which must succeed, and return its standard output."""
        return self._run(self.program, *arguments)

    def evaluate(self, code: str) -> str:
        """Run Python code in the environment and return what it prints."""
        return self._run(self.python, "-P", "-c", code)

    def _run(self, *command: str | Path) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()


def build(target: str, root: Path, folder: Path) -> Path:
    """Build the "wheel" or the "sdist" of a project without the network, and return its file."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    return next(folder.iterdir())


def list_files(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An environment with the wheel, and the locked dependencies from the environment of the tests."""
    environment, user, folder = (tmp_path_factory.mktemp(name) for name in ("environment", "user", "elsewhere"))
    python = environment / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    offline = ["install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *offline, str(wheel)], check=True)
    # Python does not read the .pth files of a folder that a .pth file names, so an editable install stays outside.
    site = next(environment.glob("lib/python*/site-packages"))
    (site / "locked.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # Nothing may be imported from the working directory.
    (folder / "random.py").write_text("raise RuntimeError('imported from the working directory')")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MFLUX_", "PYTHON"))}
    program = environment / "bin" / "mflux-api"
    return Installed(python, program, folder, {**kept, "HOME": str(user)})


def test_the_wheel_holds_the_registry_and_the_embedded_model(wheel: Path) -> None:
    assert {EMBEDDED, "mflux_api/data/configs/models.yaml"} <= set(list_files(wheel))


def test_a_wheel_built_from_the_source_archive_is_the_same(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    rebuilt = build("wheel", next((tmp_path / "source").iterdir()), tmp_path / "rebuilt")
    assert list_files(rebuilt) == list_files(wheel)


def test_what_is_tested_is_the_installed_package(installed: Installed) -> None:
    code = "import sys, mflux_api; print(mflux_api.__file__, *sys.path, sep='\\n')"
    package, *paths = installed.evaluate(code).splitlines()
    assert Path(package).is_relative_to(installed.python.parents[1])
    assert str(ROOT) not in paths


def test_the_models_are_listed_with_the_embedded_one_here(installed: Installed) -> None:
    lines = installed.run("models").splitlines()
    assert [line.split()[0] for line in lines if line.split()[1] == "flux2-tiny"] == ["here"]


def test_the_command_names_its_version(installed: Installed) -> None:
    assert installed.run("--version") == f"mflux-api {mflux_api.__version__}"


def test_the_doctor_finds_the_engine_and_the_home(installed: Installed) -> None:
    lines = installed.run("doctor").splitlines()
    assert f"ok    home         {installed.home}" in lines
    assert lines[-1].startswith("0 failed")


def test_a_picture_is_painted_into_the_home(installed: Installed) -> None:
    painted = installed.run("generate", "a red circle", *QUICK)
    assert Path(painted) == installed.home / "output" / PICTURE
    assert Path(painted).read_bytes().startswith(b"\x89PNG")


def test_the_server_names_its_home_and_paints_into_it(installed: Installed) -> None:
    with installed.serve() as live:
        assert live.get("/api/v1/health").json()["status"] == "healthy"
        assert live.get("/").status_code == 200
        body = {"prompt": "a red circle", "model": "flux2-tiny", "width": 64, "height": 64, "steps": 1}
        picture = live.post("/sdapi/v1/txt2img", body).json()["images"][0]
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert f"Home: {installed.home}  (config.yaml, models, output, logs)" in live.lines
    assert (installed.home / "output" / "jobs.db").is_file()


def test_a_notebook_elsewhere_uses_the_same_home(installed: Installed) -> None:
    code = "import mflux_api; print(mflux_api.load_model('flux2-tiny').lora_dir)"
    assert installed.evaluate(code) == str(installed.home / "models" / "loras")


# Last: the commands above have run.
def test_nothing_is_written_to_the_working_directory(installed: Installed) -> None:
    assert [path.name for path in installed.folder.iterdir()] == ["random.py"]
