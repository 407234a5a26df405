"""The examples of the documents, run as they stand against one server. The JavaScript runs in test_browser.py.

Only addresses, ports and sizes are replaced. Instead of published models there are small checkpoints under their names.
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from mflux_api.models.registry import EMBEDDED_MODELS_DIR, load_registry
from tests.support import hub as hubs
from tests.support import until_ready
from tests.support.documents import SMALL_SERVER
from tests.support.hub import FakeHub, read_files
from tests.support.live_server import LiveServer, run_server
from tests.support.markdown import Block, read_blocks
from tests.support.paths import CHECKPOINTS, EXAMPLE_DOCUMENTS, ROOT
from tests.support.servers import COLUMNS, LAYER, ROWS
from tests.support.stored_files import Kind, copy_klein, in_their_names, load_weights, write_gguf

pytestmark = pytest.mark.system

README = ROOT / "README.md"
# Of this one only the settings: the rest is for other programs.
OPERATIONS = ROOT / "docs" / "operations.md"
LOCAL = "http://localhost:7861"
PUBLISHED = "flux2-klein-4b"
# Published models, and the small checkpoints that paint in their place.
STAND_INS = {
    PUBLISHED: CHECKPOINTS / "klein",
    "flux2-dev": CHECKPOINTS / "dev",
    "FLUX.2-klein-4B": EMBEDDED_MODELS_DIR / "flux2-tiny",
}
PREPARED = ("lake.png", "mask.png", "star.png", "sky.png")
SMALLER = (
    *((f"{side}x{side}", "128x128") for side in (1024, 512, 256)),
    *((f'"width": {side}, "height": {side}', '"width": 256, "height": 256') for side in (1024, 512)),
    ("width=256, height=256", "width=128, height=128"),
)
PORTS = (("--port 8080", "--port 0"), ("--port 2222", "--port 0"), ("MFLUX_API_PORT=9000", "MFLUX_API_PORT=0"))
# Before each block, so that a failure names its line.
SHELL = ["bash", "-eu", "-o", "pipefail", "-c"]
TRAP = """trap 'echo "failed in the block at line $BLOCK" >&2' ERR
"""


def list_documents(language: str) -> list[object]:
    """Return the documents with such a block. Those other than the README are marked as slow."""
    found = [document for document in (*EXAMPLE_DOCUMENTS, OPERATIONS) if list_blocks(document, language)]
    marks = {README: ()}
    return [
        pytest.param(path, id=str(path.relative_to(ROOT)), marks=marks.get(path, (pytest.mark.slow,))) for path in found
    ]


def list_blocks(document: Path, language: str) -> list[Block]:
    return [block for block in read_blocks(document) if block.language == language]


def link_models(folder: Path) -> None:
    """Put the stand-ins into a folder of models, without copying their weights."""
    for name, checkpoint in STAND_INS.items():
        shutil.copytree(checkpoint, folder / name, copy_function=os.link)


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    """A hub with the default model. It holds each download half-way for a while, so that it can be followed."""
    spec = load_registry()[PUBLISHED]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hubs, "REPOSITORY", spec.repository)
        patch.setattr(hubs, "COMMIT", spec.revision)
        with hubs.run_hub(read_files(STAND_INS[PUBLISHED])) as found:
            found.hold = True
            yield found


@pytest.fixture(scope="module")
def documented(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server that downloads from this hub, and paints the fixed sizes of two APIs at 64 pixels a side."""
    folder = Path(tmp_path_factory.mktemp("documented"))
    environ = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "HF_HOME": str(folder / "home")}
    options = ("--models-dir", str(folder / "models"))
    with run_server(folder / "output", *options, environ=environ, program=SMALL_SERVER) as live:
        yield live


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder with the files that the documents name, and `mflux-api` in its folder `bin`."""
    for name in PREPARED:
        Image.new("RGB", (128, 128), "navy").save(tmp_path / name)
    link_models(tmp_path / "models")
    write_one_file(tmp_path / "models" / "my-klein")
    (tmp_path / "models" / "loras").mkdir()
    for path in (tmp_path / "models" / "loras" / "style.safetensors", tmp_path / "detail.safetensors"):
        write_lora(path)
    (tmp_path / "home").mkdir()
    # Examples leave this out for brevity; here an error of the server has to fail the test.
    (tmp_path / "home" / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "mflux-api"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{until_ready.__file__}" "$@"\n')
    program.chmod(0o755)
    (tmp_path / "api_main.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\nfrom tests.support.until_ready import run_until_ready\n"
        'sys.exit(run_until_ready(["serve", *sys.argv[1:]]))\n'
    )
    return tmp_path


def write_one_file(folder: Path) -> None:
    """Write a model whose transformer is one GGUF file."""
    copy_klein(folder)
    tensors = in_their_names(load_weights(folder / "transformer"))
    write_gguf(folder / "flux-2-klein-4b-Q4_K_M.gguf", tensors, lambda _: Kind.Q8_0)
    shutil.rmtree(folder / "transformer")


def write_lora(path: Path) -> None:
    noise = np.random.default_rng(0)
    factors = {"lora_A": noise.normal(size=(4, COLUMNS)), "lora_B": noise.normal(size=(ROWS, 4))}
    save_file({f"{LAYER}.{name}.weight": values.astype(np.float32) for name, values in factors.items()}, path)


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def replace(text: str, server: LiveServer) -> str:
    """Replace addresses, ports and large sizes in an example."""
    own = ((LOCAL, server.url), ("port=7861", f"port={urlsplit(server.url).port}"))
    for before, after in (*own, *PORTS, ("klein:8000", f"klein:{find_free_port()}"), *SMALLER):
        text = text.replace(before, after)
    return text


def run(command: list[str], folder: Path) -> str:
    """Run a command in this folder and return what it printed. Asserts that it succeeds."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "CURL_HOME": str(folder / "home"),
            "MFLUX_HOME": str(folder),
            # `mflux-api serve` without a port.
            "MFLUX_API_PORT": "0",
            "MFLUX_API_HOST": "127.0.0.1",
            "KEY": "any",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def check_pictures(folder: Path) -> None:
    """Assert that every file that is named as a picture is one."""
    for path in folder.rglob("*.*"):
        if path.suffix in {".png", ".jpeg"}:
            with Image.open(path) as picture:
                picture.load()


@pytest.mark.parametrize("document", list_documents("sh"))
def test_the_commands_of_a_document_run(document: Path, documented: LiveServer, scratch: Path) -> None:
    blocks = [f"BLOCK={block.line}\n{replace(block.text, documented)}" for block in list_blocks(document, "sh")]
    run([*SHELL, TRAP + "".join(blocks)], scratch)
    check_pictures(scratch)


@pytest.mark.parametrize("document", list_documents("python"))
def test_the_python_of_a_document_runs(document: Path, documented: LiveServer, scratch: Path) -> None:
    for block in list_blocks(document, "python"):
        # The empty lines give a traceback the lines of the document.
        run([sys.executable, "-c", "\n" * (block.line - 1) + replace(block.text, documented)], scratch)
    check_pictures(scratch)


@pytest.mark.parametrize("document", list_documents("yaml"))
def test_the_settings_of_a_document_load(document: Path, scratch: Path) -> None:
    for block in list_blocks(document, "yaml"):
        file = scratch / "settings.yaml"
        file.write_text(block.text)
        in_force = run(["mflux-api", "settings", "--config", str(file)], scratch)
        assert f"({file})" in in_force
