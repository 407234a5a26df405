"""The command line, run with arguments as a user types them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mflux_api.cli import main
from mflux_api.engine.bench import Measurement
from mflux_api.engine.model import Model, load_model
from mflux_api.ipc.messages import PaintingEvent, Step
from tests.support.paths import ROOT

QUICK = ["--size", "64x64", "--steps", "1"]
FULL = Path("/dev/full")


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "source.png"
    Image.new("RGB", (64, 64), "red").save(path)
    return str(path)


@pytest.fixture(autouse=True)
def loaded_once(monkeypatch: pytest.MonkeyPatch, tiny: Model) -> None:
    """Reuse the embedded model of the session; load every other model as usual."""

    def load(name: str, **options: object) -> Model:
        plain = options.get("quantize") is None and options.get("precision", "auto") == "auto"
        return tiny if name == "flux2-tiny" and plain else load_model(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("mflux_api.engine.model.load_model", load)


def generate(tmp_path: Path, *arguments: str) -> int:
    return main(["generate", "a red circle", *QUICK, "--output", str(tmp_path / "out"), *arguments])


def list_pictures(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def test_the_path_of_each_picture_is_printed_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(tmp_path, "--seed", "7", "--n", "2") == 0
    paths = capsys.readouterr().out.splitlines()
    assert paths == [str(tmp_path / "out" / f"flux2-tiny_a-red-circle_seed{seed}.png") for seed in (7, 8)]
    assert list_pictures(tmp_path) == [Path(path).name for path in paths]


def test_a_picture_carries_its_generation_data(tmp_path: Path) -> None:
    generate(tmp_path, "--seed", "7")
    with Image.open(tmp_path / "out" / "flux2-tiny_a-red-circle_seed7.png") as image:
        text = image.info["parameters"]
    prompt, facts = text.split("\n")
    assert prompt == "a red circle"
    assert facts.startswith("Steps: 1, Sampler: Euler, CFG scale: 1, Seed: 7, Size: 64x64, Model: flux2-tiny, Version:")
    assert str(tmp_path) not in text


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    for _ in range(3):
        generate(tmp_path, "--seed", "7")
    assert list_pictures(tmp_path) == [f"flux2-tiny_a-red-circle_seed7{end}.png" for end in ("-2", "-3", "")]


def test_output_may_name_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.png"
    assert main(["generate", "x", *QUICK, "--output", str(target)]) == 0
    assert capsys.readouterr().out.strip() == str(target)


def test_a_prompt_without_letters_still_gets_a_name(tmp_path: Path) -> None:
    main(["generate", "日本", *QUICK, "--seed", "1", "--output", str(tmp_path / "out")])
    assert list_pictures(tmp_path) == ["flux2-tiny_picture_seed1.png"]


def test_without_a_seed_one_is_chosen_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path)
    assert "seed " in capsys.readouterr().err


def test_guidance_on_a_distilled_model_is_told_to_run_at_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path, "--guidance", "4")
    assert "flux2-tiny is distilled: guidance ran at 1." in capsys.readouterr().err


def test_every_option_reaches_the_painting(tmp_path: Path, picture: str) -> None:
    options = [
        "--image",
        picture,
        "--mask",
        picture,
        "--strength",
        "0.5",
        "--reference",
        picture,
        "--reference",
        picture,
    ]
    assert generate(tmp_path, *options, "--negative", "blue", "--guidance", "2") == 0


def test_strength_0_gives_the_picture_back(tmp_path: Path, picture: str) -> None:
    generate(tmp_path, "--image", picture, "--strength", "0", "--seed", "1")
    with Image.open(tmp_path / "out" / "flux2-tiny_a-red-circle_seed1.png") as image, Image.open(picture) as source:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(source))


def test_a_turned_photograph_is_turned_upright(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (128, 64), "red").save(path, exif=exif)
    main(["generate", "x", "--steps", "1", "--image", str(path), "--seed", "1", "--output", str(tmp_path / "out")])
    with Image.open(tmp_path / "out" / "flux2-tiny_x_seed1.png") as image:
        assert image.size == (64, 128)


BAD_INPUT, FAILED = 2, 1
REFUSALS = [
    (["--size", "65x64"], BAD_INPUT, "width must be a multiple of 16 from 64 up, not 65."),
    (["--size", "large"], BAD_INPUT, "--size must look like 512x512, not 'large'."),
    (["--steps", "0"], BAD_INPUT, "steps must be 1 or more, not 0."),
    (["--n", "0"], BAD_INPUT, "--n must be 1 or more, not 0."),
    (["--seed", "-1"], BAD_INPUT, "A seed must be an integer from 0 to 2^64-1, not -1."),
    (["--guidance", "nan"], BAD_INPUT, "guidance must be a number from 0 up, not nan."),
    (["--output", __file__], BAD_INPUT, "test_cli.py is not a folder that can be written to."),
    (["--output", f"{__file__}/mine.png"], BAD_INPUT, "test_cli.py is not a folder that can be written to."),
    (["--output", "mine.jpg"], BAD_INPUT, "--output must be a folder or end in .png, not mine.jpg."),
    (["--strength", "2"], BAD_INPUT, "strength must be between 0 (keep) and 1 (ignore), not 2.0."),
    (["--quantize", "5"], BAD_INPUT, "quantize must be one of 3, 4, 6, 8 (bits), not 5."),
    (["--precision", "int8"], BAD_INPUT, "precision must be one of auto, float32, bfloat16, float16, not 'int8'."),
    (["--image", "no.png"], BAD_INPUT, "no.png is not a picture that can be read."),
    (["--reference", __file__], BAD_INPUT, "test_cli.py is not a picture that can be read."),
    (["--lora", "nothing:1"], FAILED, "There is no LoRA 'nothing'"),
    (["--lora", "x:99"], BAD_INPUT, "A LoRA scale must be between -10 and 10, not '99'."),
    (["--model", "flux3"], FAILED, "Model 'flux3' not found: neither a known name nor a folder."),
    (["--model", "/no\nwhere"], FAILED, "There is no model folder at /no where."),
    (["--model", "/nowhere/model"], FAILED, "There is no model folder at /nowhere/model."),
]


@pytest.mark.parametrize(("arguments", "code", "message"), REFUSALS)
def test_bad_input_is_one_line_and_an_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert generate(tmp_path, *arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_nothing_half_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_self: object, event: PaintingEvent) -> None:
        if isinstance(event, Step):
            raise KeyboardInterrupt

    monkeypatch.setattr("mflux_api.commands.generate._ProgressBar.__call__", interrupt)
    assert generate(tmp_path) == 130
    assert capsys.readouterr().err == "Cancelled.\n"
    assert not (tmp_path / "out").exists()


def test_ctrl_c_while_writing_leaves_neither_half_a_file_nor_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_self: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    assert generate(tmp_path) == 130
    assert list_pictures(tmp_path) == []


def test_a_full_disk_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, _data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert generate(tmp_path, "--seed", "7") == 1
    assert capsys.readouterr().err.endswith("_seed7.png.partial: No space left on device\n")
    assert list_pictures(tmp_path) == []


def test_an_mlx_that_cannot_be_imported_is_one_line_that_names_the_doctor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **_options: object) -> Model:
        raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr("mflux_api.engine.model.load_model", fail)
    assert generate(tmp_path) == 1
    assert capsys.readouterr().err == (
        "error: libcuda.so.1: cannot open shared object file. `mflux-api doctor` says what is missing.\n"
    )


def test_debug_shows_where_an_error_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate(tmp_path, "--steps", "0", "--debug") == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("error: steps must be 1 or more, not 0.\n")


def test_a_repainted_picture_carries_the_strength_it_was_painted_with(tmp_path: Path, picture: str) -> None:
    generate(tmp_path, "--image", picture, "--seed", "7")
    with Image.open(tmp_path / "out" / "flux2-tiny_a-red-circle_seed7.png") as image:
        assert "Denoising strength: 0.75" in image.info["parameters"]


def test_what_pillow_thinks_of_a_file_stays_inside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cut.tif"
    Image.new("RGB", (64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:20])
    assert generate(tmp_path, "--image", str(path)) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_bench_wants_a_number_of_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--repeats", "0"]) == 2
    assert capsys.readouterr().err == "error: --repeats must be 1 or more, not 0.\n"


def test_the_bench_prints_and_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = Measurement("load", 12.0, "ms")
    monkeypatch.setattr("mflux_api.engine.bench.run_benchmark", lambda *_: iter([figure]))
    # The command sets this variable and leaves it set; monkeypatch restores it.
    monkeypatch.setenv("TQDM_DISABLE", "1")
    target = tmp_path / "figures.json"
    assert main(["bench", "--json", str(target)]) == 0
    assert capsys.readouterr().out == f"{figure}\n"
    assert json.loads(target.read_text()) == [{"name": "load", "value": 12.0, "unit": "ms", "note": ""}]


def test_models_are_listed_with_which_are_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--models-dir", str(tmp_path)]) == 0
    lines = {line.split()[1]: line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert lines["flux2-tiny"] == "here"
    assert lines["flux2-klein-9b-kv"] == "-"


def test_a_model_can_be_saved_quantized_and_used(tmp_path: Path) -> None:
    folder = tmp_path / "tiny-4bit"
    assert main(["save", str(folder), "--quantize", "4"]) == 0
    assert generate(tmp_path, "--model", str(folder)) == 0


def test_help_and_usage_errors_need_no_mlx() -> None:
    code = "import sys; from mflux_api.cli import main; main(['generate', '--help'])"
    script = f"import atexit, sys; atexit.register(lambda: print('mlx.core' in sys.modules)); {code}"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "--reference" in run.stdout
    assert run.stdout.endswith("False\n")


def test_the_whole_program_prints_its_own_lines_only(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mflux_api", "generate", "a red circle", *QUICK, "--seed", "7"]
    run = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout == f"{tmp_path / 'flux2-tiny_a-red-circle_seed7.png'}\n"
    assert len(run.stderr.splitlines()) == 1
    assert run.stderr.startswith("flux2-tiny, 64x64, 1 steps, seed 7, ")


def test_the_process_ends_at_once_with_what_it_printed() -> None:
    """A library's thread that still runs does not delay the exit."""
    lingering = "import threading; threading.Thread(target=threading.Event().wait).start()"
    script = f"from mflux_api.cli import leave; {lingering}; print('said'); leave(3)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "")


@pytest.mark.skipif(not FULL.exists(), reason="a device of Linux's")
def test_output_that_nobody_can_take_is_a_failure() -> None:
    script = "from mflux_api.cli import leave; print('said'); leave(0)"
    # Output is buffered until the exit, as by default, even if PYTHONUNBUFFERED is set here.
    env = {**os.environ, "PYTHONUNBUFFERED": ""}
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False, env=env
        )
    assert (done.returncode, done.stderr) == (1, b"")


def test_the_installed_command_takes_what_was_typed() -> None:
    script = "import sys; from mflux_api.cli import run; sys.argv = ['mflux-api', 'models', '--nonsense']; run()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "--nonsense" in done.stderr) == (2, True)
