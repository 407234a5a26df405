import re
import subprocess
import sys
from pathlib import Path

import pytest

from mflux_api.commands import doctor
from mflux_api.commands.doctor import (
    Finding,
    check_apple_chip,
    check_database_folder,
    check_folder,
    check_machine,
    check_sqlite,
    run,
)
from mflux_api.commands.probe import MlxInfo, probe_mlx
from mflux_api.models.registry import EMBEDDED_MODELS_DIR
from tests.support.empty_weights import write_model
from tests.support.seedvr2 import write_upscaler

LINUX = sys.platform == "linux"
TOKEN = "hf_neverToBeShown"


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    return list(check_machine(EMBEDDED_MODELS_DIR, tmp_path_factory.mktemp("output")))


@pytest.fixture(scope="module")
def mlx() -> MlxInfo:
    found = probe_mlx()
    assert isinstance(found, MlxInfo)
    return found


def only(findings: list[Finding], subject: str) -> Finding:
    (found,) = [finding for finding in findings if finding.subject == subject]
    return found


def test_everything_is_looked_at_once(findings: list[Finding]) -> None:
    expected = {"system", "python", "chip", "mlx", "speed", "memory", "swap", "models", "output", "sqlite"}
    assert expected | {"open files", "model", "hf token"} <= {finding.subject for finding in findings}
    assert [finding for finding in findings if finding.state == "fail"] == []


def test_a_model_that_enlarges_is_said_to(tmp_path: Path) -> None:
    write_upscaler(tmp_path / "models" / "mine")
    told = [finding.message for finding in check_machine(tmp_path / "models", tmp_path) if finding.subject == "model"]
    assert "mine, a folder of your own, enlarges pictures" in told


def test_whatever_is_wrong_comes_with_advice(findings: list[Finding]) -> None:
    assert [finding for finding in findings if finding.state in ("warn", "fail") and not finding.advice] == []


def test_mlx_says_its_version_and_device(findings: list[Finding], mlx: MlxInfo) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\S* on (cpu|metal|cuda)", only(findings, "mlx").message)
    assert only(findings, "chip").message == mlx.chip
    assert mlx.budget > 0


@pytest.mark.skipif(not LINUX, reason="other systems have their own BLAS")
def test_the_probe_names_the_openblas_that_makes_mlx_fast(mlx: MlxInfo) -> None:
    assert mlx.openblas is not None
    assert "openblas" in mlx.openblas
    assert mlx.gflops > 0


@pytest.mark.slow
def test_the_probe_leaves_mlx_out_of_this_process() -> None:
    code = (
        "import sys; from pathlib import Path; from mflux_api.commands.doctor import run;"
        "run(Path(), Path('models'), Path('.')); sys.exit('mlx.core' in sys.modules)"
    )
    root = EMBEDDED_MODELS_DIR.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=False).returncode == 0


def test_an_mlx_that_does_not_start_is_a_failure_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    found = probe_mlx()
    assert isinstance(found, str)
    assert found


def test_mlxs_cuda_build_without_a_driver_is_told_from_a_broken_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mflux_api.commands.doctor.probe_mlx", lambda: "ImportError: libcuda.so.1: cannot open")
    found = only(list(check_machine(EMBEDDED_MODELS_DIR, tmp_path)), "mlx")
    assert found.state == "fail"
    assert "Install the CPU build" in found.advice


@pytest.mark.parametrize(
    ("gflops", "openblas", "state", "word"),
    [(200, None, "ok", ""), (4.3, None, "warn", "reference BLAS"), (4.3, "/x/libopenblas.so", "warn", "busy")],
)
def test_a_slow_product_is_told_with_its_reason(
    mlx: MlxInfo, gflops: float, openblas: str | None, state: str, word: str
) -> None:
    slow = MlxInfo(**{**vars(mlx), "device": "cpu", "gflops": gflops, "openblas": openblas})
    assert doctor.check_speed(slow).state == state
    assert word in doctor.check_speed(slow).advice


# Apple's chips


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    file = tmp_path / "mlx.metallib"
    file.write_bytes(b"MTLB" + bytes(100_000) + b"steel_gemm_fused_nax_nn_float16" + bytes(10))
    return file


@pytest.mark.parametrize(
    ("chip", "subjects"),
    [
        ("Apple M1", ["bfloat16"]),
        ("Apple M2 Ultra", ["bfloat16"]),
        ("Apple M3 Max", []),
        ("Apple M4", []),
        ("Apple M5 Pro", ["matrix units"]),
        ("Apple M10", ["matrix units"]),
        ("VirtualApple @ 2.50GHz", []),
    ],
)
def test_each_generation_has_its_own_remarks(kernels: Path, chip: str, subjects: list[str]) -> None:
    assert [finding.subject for finding in check_apple_chip(chip, "26.2", kernels)] == subjects


def test_an_m5_wants_a_system_and_a_build_that_use_its_matrix_units(kernels: Path, tmp_path: Path) -> None:
    def state(system: str, file: Path) -> str:
        (finding,) = check_apple_chip("Apple M5", system, file)
        return finding.state

    without = tmp_path / "without.metallib"
    without.write_bytes(bytes(1000))
    (tmp_path / "empty").touch()
    assert state("26.2", kernels) == state("27.0", kernels) == "ok"
    assert state("26.1.9", kernels) == state("15.7", kernels) == "warn"
    assert state("26.3", without) == "warn"
    assert state("26.3", tmp_path / "missing") == state("26.3", tmp_path / "empty") == "note"


# Folders


def test_a_folder_that_can_be_made_is_no_problem(tmp_path: Path) -> None:
    (finding,) = check_folder("output", tmp_path / "a" / "b", 1)
    assert finding.state == "ok"
    assert "(not there yet)" in finding.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("subject", ["models", "output"])
def test_a_folder_below_a_file_fails(tmp_path: Path, subject: str) -> None:
    (tmp_path / "file").touch()
    (finding,) = check_folder(subject, tmp_path / "file" / "inside", 1)
    assert finding.state == "fail"
    assert "cannot be written to: Not a directory" in finding.message


def test_a_folder_that_takes_no_files_fails_for_pictures_and_warns_for_models() -> None:
    # A folder that not even root can write to.
    folder = Path("/sys" if LINUX else "/System")
    assert [finding.state for finding in check_folder("output", folder, 1)] == ["fail"]
    assert [finding.state for finding in check_folder("models", folder, 1)] == ["warn"]


def test_too_little_space_is_a_warning(tmp_path: Path) -> None:
    (finding,) = check_folder("output", tmp_path, 2**60)
    assert finding.state == "warn"
    assert "disk is full" in finding.advice


def test_a_relative_folder_is_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (finding,) = check_folder("output", Path("output"), 1)
    assert str(tmp_path / "output") in finding.message


@pytest.mark.parametrize(("kind", "warned"), [("ext4", False), ("apfs", False), ("nfs4", True), ("smbfs", True)])
def test_pictures_on_a_network_disk_are_warned_of(tmp_path: Path, kind: str, warned: bool) -> None:
    mounts = [("/", "nfs" if not warned else "ext4"), (str(tmp_path.resolve()), kind), ("/elsewhere", "nfs")]
    assert bool(list(check_database_folder(tmp_path / "output", mounts))) == warned


@pytest.mark.parametrize(
    ("folder", "warned"),
    [
        ("Library/Mobile Documents/com~apple~CloudDocs/output", True),
        ("Library/CloudStorage/GoogleDrive/output", True),
        ("Dropbox/output", True),
        ("pictures/output", False),
    ],
)
def test_pictures_in_a_synced_folder_are_warned_of(tmp_path: Path, folder: str, warned: bool) -> None:
    assert bool(list(check_database_folder(tmp_path / folder, [("/", "apfs")]))) == warned


# Other findings


@pytest.mark.parametrize(
    ("version", "state"), [("3.40.1", "warn"), ("3.51.2", "warn"), ("3.51.3", "ok"), ("3.52.0", "ok"), ("4.0", "ok")]
)
def test_an_sqlite_with_the_log_bug_is_warned_of(version: str, state: str) -> None:
    assert check_sqlite(version).state == state


def test_the_embedded_models_are_here(findings: list[Finding]) -> None:
    models = [finding.message for finding in findings if finding.subject == "model"]
    assert "flux2-tiny, part of this project" in models


def test_models_on_this_machine_come_with_their_licence(tmp_path: Path) -> None:
    write_model(tmp_path / "flux2-klein-9b")
    write_model(tmp_path / "flux2-klein-4b")
    found = [finding for finding in check_machine(tmp_path, tmp_path) if finding.subject == "model"]
    states = {finding.message.rpartition(",")[0]: finding.state for finding in found}
    assert states["flux2-klein-4b, Apache-2.0"] == "ok"
    assert states["flux2-klein-9b, FLUX Non-Commercial"] == "note"


def test_a_token_is_seen_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    run(Path(), EMBEDDED_MODELS_DIR, tmp_path)
    shown = capsys.readouterr()
    assert re.search(r"^ok +hf token +set$", shown.out, flags=re.MULTILINE)
    assert TOKEN not in shown.out + shown.err


def test_the_command_prints_a_line_a_finding_and_succeeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Path(), EMBEDDED_MODELS_DIR, tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(re.match(r"(ok|note|warn) +\S| {18} \S", line) for line in lines[:-2])
    assert re.fullmatch(r"0 failed, \d+ to look at\.", lines[-1])


def test_the_command_fails_when_pictures_have_no_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(Path(), EMBEDDED_MODELS_DIR, tmp_path / "file" / "output") == 1
    assert re.search(r"^fail +output ", capsys.readouterr().out, flags=re.MULTILINE)


def test_few_open_files_are_warned_of(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from mflux_api.commands.doctor import run;"
        f"run(Path(), Path('models'), Path({str(tmp_path)!r}))"
    )
    asked = subprocess.run(
        ["sh", "-c", 'ulimit -n 256; exec "$0" -c "$1"', sys.executable, code],
        cwd=EMBEDDED_MODELS_DIR.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"^warn +open files +up to 256$", asked.stdout, flags=re.MULTILINE)
