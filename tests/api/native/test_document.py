"""Run the examples of the API's document as its readers do, on the real engine with the embedded model."""

import base64
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mflux_api.models.registry import EMBEDDED_MODELS_DIR
from tests.support.live_server import LiveServer, run_server

pytestmark = pytest.mark.system

NAMED = ("flux2-klein-4b", "flux2-klein-9b", "flux2-klein-4b-mlx-4bit")
LOCAL = "http://localhost:7861"
# The default size is small here: the examples paint many pictures.
USUAL = (64, 64)
SMALL = ("--set", "generation.default_width=64", "--set", "generation.default_height=64")
# The sizes that the examples name, and what they become here.
SIZES = (("1024", "128"), ("576", "80"), ("768", "96"), ("512", "64"))


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Run a server whose published models are copies of the embedded one."""
    folder = Path(tmp_path_factory.mktemp("documented"))
    for name in NAMED:
        shutil.copytree(EMBEDDED_MODELS_DIR / "flux2-tiny", folder / "models" / name, copy_function=os.link)
    default = ("--model", "flux2-klein-4b", "--models-dir", str(folder / "models"))
    with run_server(folder / "output", *default, *SMALL) as live:
        yield live


def shrink(example: str) -> str:
    """Replace the sizes in an example by small ones."""
    for before, after in SIZES:
        example = re.sub(rf'("(?:width|height)": ){before}\b', rf"\g<1>{after}", example)
    return example


def curl(server: LiveServer, command: str) -> Any:
    """Run a curl command of the document, with a small size, and return its reply, parsed as JSON."""
    words = shlex.split(shrink(command).replace("\\\n", "").replace(LOCAL, server.url))
    done = subprocess.run([*words, "--silent", "--show-error", "--fail-with-body"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def run(server: LiveServer, script: str, folder: Path) -> str:
    """Run a Python example of the document, with a small size and no waits of seconds, and return its output.

    Imports `base64`, which some examples omit.
    """
    code = "import base64\n" + shrink(script).replace(LOCAL, server.url).replace("time.sleep(2)", "time.sleep(0.02)")
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def picture(text: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    image.load()
    return image


FIRST = """curl -X POST http://localhost:7861/sdapi/v1/txt2img \\
  -H "Content-Type: application/json" \\
  -d '{
    "prompt": "a beautiful sunset over mountains",
    "model": "flux2-klein-4b",
    "steps": 4
  }'"""
ASTRONAUT = """curl -X POST http://localhost:7861/sdapi/v1/txt2img \\
  -H "Content-Type: application/json" \\
  -d '{
    "prompt": "astronaut riding a horse on mars",
    "model": "flux2-klein-4b",
    "steps": 4,
    "seed": 123
  }'"""
SUNSET = """curl -X POST http://localhost:7861/sdapi/v1/txt2img \\
  -H "Content-Type: application/json" \\
  -d '{
    "prompt": "sunset over mountains, vibrant colors",
    "model": "flux2-klein-4b",
    "steps": 4,
    "width": 1024,
    "height": 576
  }'"""
PREQUANTIZED = """curl -X POST http://localhost:7861/sdapi/v1/txt2img \\
  -H "Content-Type: application/json" \\
  -d '{
    "prompt": "a cyberpunk street scene",
    "model": "flux2-klein-4b-mlx-4bit",
    "steps": 4
  }'"""


CURLS = [(FIRST, USUAL), (ASTRONAUT, USUAL), (SUNSET, (128, 80)), (PREQUANTIZED, USUAL)]


@pytest.mark.parametrize(("command", "size"), CURLS)
def test_a_curl_of_the_document_brings_a_picture(documented: LiveServer, command: str, size: tuple[int, int]) -> None:
    reply = curl(documented, command)
    assert picture(reply["images"][0]).size == size
    sent = re.search(r'"prompt": "(.*)"', command)
    assert sent is not None
    assert reply["parameters"]["prompt"] == sent[1]
    assert reply["parameters"]["steps"] == 4


def test_the_documented_request_gets_the_documented_reply(documented: LiveServer) -> None:
    body = {
        "prompt": "a beautiful landscape with mountains and lakes",
        "model": "flux2-klein-4b",
        "seed": 42,
        "width": 64,
        "height": 64,
        "steps": 4,
        "guidance": 1.0,
        "num_images": 1,
        "lora_files": [],
        "lora_scales": [],
        "low_ram": False,
    }
    reply = documented.post("/sdapi/v1/txt2img", body).json()
    assert set(reply) == {"images", "parameters", "info"}
    expected = {"prompt": body["prompt"], "seed": 42, "steps": 4, "model": "flux2-klein-4b"}
    assert expected.items() <= reply["parameters"].items()
    assert "Generated 1 image(s) in " in reply["info"]


def test_the_python_example_saves_a_picture(documented: LiveServer, tmp_path: Path) -> None:
    printed = run(
        documented,
        """
import requests
import base64
from io import BytesIO
from PIL import Image

response = requests.post(
    "http://localhost:7861/sdapi/v1/txt2img",
    json={
        "prompt": "a serene japanese garden with cherry blossoms",
        "model": "flux2-klein-4b",
        "steps": 4,
        "width": 768,
        "height": 512
    }
)

data = response.json()
image_b64 = data["images"][0]
image = Image.open(BytesIO(base64.b64decode(image_b64)))
image.save("generated.png")
print(f"Generated image: {data['info']}")
""",
        tmp_path,
    )
    assert printed.startswith("Generated image: ")
    with Image.open(tmp_path / "generated.png") as image:
        assert image.size == (96, 64)


def test_a_picture_is_repainted_as_documented(documented: LiveServer) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (96, 64), "navy").save(buffer, "PNG")
    body = {
        "prompt": "turn this into a watercolor painting",
        "init_images": [base64.b64encode(buffer.getvalue()).decode()],
        "model": "flux2-klein-4b",
        "image_strength": 0.75,
        "steps": 4,
    }
    reply = documented.post("/sdapi/v1/img2img", body).json()
    assert picture(reply["images"][0]).size == (96, 64)
    assert reply["parameters"]["image_strength"] == 0.75


def test_progress_is_monitored_as_in_the_second_workflow(documented: LiveServer, tmp_path: Path) -> None:
    printed = run(
        documented,
        """
import requests
import time

# Submit job
response = requests.post(
    "http://localhost:7861/api/v1/generate",
    json={
        "prompt": "abstract geometric patterns, colorful",
        "model": "flux2-klein-4b",
        "steps": 8,
        "num_images": 4
    }
)
job_id = response.json()["job_id"]
print(f"Job submitted: {job_id}")

# Poll for completion
while True:
    status = requests.get(f"http://localhost:7861/api/v1/jobs/{job_id}").json()

    if status["status"] == "completed":
        print("Generation complete!")
        for i, img_b64 in enumerate(status["result"]["images"]):
            with open(f"output_{i}.png", "wb") as f:
                f.write(base64.b64decode(img_b64))
        break
    elif status["status"] == "failed":
        print(f"Generation failed: {status.get('error')}")
        break

    print(f"Progress: {status['progress'] * 100:.1f}%")
    time.sleep(2)
""",
        tmp_path,
    )
    assert "Generation complete!" in printed
    shares = [float(share) for share in re.findall(r"Progress: ([\d.]+)%", printed)]
    assert shares == sorted(shares)
    assert max(shares) > 0
    assert len({path.read_bytes() for path in tmp_path.glob("output_?.png")}) == 4


def test_a_batch_of_seeds_is_painted_as_in_the_fourth_workflow(documented: LiveServer, tmp_path: Path) -> None:
    printed = run(
        documented,
        """
import requests
import base64

prompts = [
    "a peaceful forest scene",
    "a bustling city street",
    "an alien landscape"
]

for i, prompt in enumerate(prompts):
    response = requests.post(
        "http://localhost:7861/sdapi/v1/txt2img",
        json={
            "prompt": prompt,
            "model": "flux2-klein-4b",
            "steps": 4,
            "seed": i * 100  # Different seed for each
        }
    )

    img_b64 = response.json()["images"][0]
    with open(f"batch_{i}.png", "wb") as f:
        f.write(base64.b64decode(img_b64))

    print(f"Generated: {prompt}")
""",
        tmp_path,
    )
    assert printed.count("Generated: ") == 3
    assert len({path.read_bytes() for path in tmp_path.glob("batch_?.png")}) == 3


def test_low_ram_mode_is_taken(documented: LiveServer) -> None:
    body = {"prompt": "...", "model": "flux2-klein-4b-mlx-4bit", "low_ram": True, "width": 64, "height": 64}
    assert documented.post("/sdapi/v1/txt2img", body).status_code == 200


def test_a_model_of_flux1_is_refused_in_the_documented_words(documented: LiveServer) -> None:
    reply = documented.post("/sdapi/v1/txt2img", {"prompt": "x", "model": "schnell"})
    assert reply.status_code == 404
    assert reply.json()["code"] == "MODEL_NOT_FOUND"
    assert reply.json()["error"] == (
        "Model 'schnell' not found. Flux1 models removed. Use flux2-klein-4b or flux2-klein-9b"
    )


def test_an_order_is_answered_as_documented(documented: LiveServer) -> None:
    body = {"prompt": "a futuristic city at night", "model": "flux2-klein-9b", "steps": 8, "num_images": 4}
    reply = documented.post("/api/v1/generate", body)
    assert reply.status_code == 200
    content = reply.json()
    assert set(content) == {"job_id", "status", "position"}
    assert re.fullmatch("[0-9a-f]{12}", content["job_id"])
    assert content["status"] in {"queued", "generating"}
    assert documented.delete(f"/api/v1/jobs/{content['job_id']}").json() == {"status": "cancelled"}
    assert documented.get_job(content["job_id"])["status"] == "cancelled"


DATE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
SHAPES: dict[str, dict[str, Any]] = {
    "/api/v1/health": {
        "status": "healthy",
        "version": str,
        "models_available": int,
        "active_jobs": int,
        "queue_length": int,
    },
    "/api/v1/system": {
        "active_model": (str, type(None)),
        "mlx_memory_gb": float,
        "system_memory_gb": {"total": float, "used": float, "free": float},
        "device": str,
    },
    "/api/v1/queue": {"active": (dict, type(None)), "queued": list},
    "/api/v1/stats": {
        "total_generations": int,
        "total_images": int,
        "average_time_seconds": float,
        "uptime_hours": float,
    },
    "/api/v1/models/flux2-klein-9b/status": {
        "model": "flux2-klein-9b",
        "status": "ready",
        "downloaded": True,
        "loaded": bool,
        "size_gb": float,
        "path": str,
    },
}


@pytest.mark.parametrize("path", SHAPES)
def test_a_reply_has_every_documented_field(documented: LiveServer, path: str) -> None:
    assert_shape(documented.get(path).json(), SHAPES[path])


def assert_shape(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        for name, part in expected.items():
            assert_shape(found[name], part)
    elif isinstance(expected, (type, tuple)):
        assert isinstance(found, expected)
    else:
        assert found == expected


def test_a_finished_job_has_every_documented_field(documented: LiveServer) -> None:
    job_id = documented.submit(seed=42, num_images=4)
    job = documented.wait_for_status(job_id)
    shape = {
        "id": job_id,
        "status": "completed",
        "progress": 1.0,
        "result": {"images": list, "seeds": [42, 43, 44, 45]},
    }
    assert_shape(job, shape)
    for name in ("created_at", "completed_at"):
        assert re.fullmatch(DATE, str(job[name]))
    listed = documented.get("/api/v1/jobs").json()["jobs"][0]
    assert_shape(listed, {"id": job_id, "status": "completed", "progress": 1.0, "prompt": "a red circle"})
    assert "images" not in listed


def test_the_models_have_every_documented_field(documented: LiveServer) -> None:
    row = next(row for row in documented.get("/api/v1/models").json()["models"] if row["title"] == "flux2-klein-4b")
    shape = {
        "model_name": "black-forest-labs/FLUX.2-klein-4B",
        "hash": str,
        "sha256": str,
        "config": {"base_arch": "flux2", "supports_guidance": False, "max_sequence_length": 512},
        "downloaded": True,
        "size_gb": float,
    }
    assert_shape(row, shape)


# Every name of the document's table.
ALIASES = [
    *(f"flux2-klein-{size}{variant}" for size in ("4b", "9b", "base-4b") for variant in ("", "-mlx-4bit", "-mlx-8bit")),
    *(f"flux2-klein-{size}-{bits}-bit" for size in ("4b", "9b", "base-4b", "base-9b") for bits in (3, 4, 6, 8)),
    *("flux2-klein-base-9b", "flux2-dev", "flux2-dev-4-bit", "flux2-dev-8-bit", "seedvr2", "flux2-klein-9b-kv"),
]


def test_every_alias_of_the_table_is_listed(documented: LiveServer) -> None:
    titles = {row["title"] for row in documented.get("/api/v1/models").json()["models"]}
    assert [alias for alias in ALIASES if alias not in titles] == []


@pytest.mark.parametrize("model", ["flux2-dev", "flux2-dev-8-bit"])
def test_a_model_of_the_table_that_is_not_here_can_be_downloaded(documented: LiveServer, model: str) -> None:
    assert documented.get(f"/api/v1/models/{model}/status").json()["status"] == "not_downloaded"


@pytest.mark.parametrize(
    ("sent", "used"),
    [
        ({"sd_model_checkpoint": "flux2-klein-9b"}, {"model": "flux2-klein-9b"}),
        ({"cfg_scale": 7}, {"guidance": 1.0}),
        ({"batch_size": 2, "n_iter": 2}, {"num_images": 4}),
        ({"seed": "12", "steps": 2.0}, {"seed": 12, "steps": 2}),
    ],
)
def test_names_of_sd_webui_stand_beside_the_documented_ones(
    documented: LiveServer, sent: dict[str, Any], used: dict[str, Any]
) -> None:
    reply = documented.post("/sdapi/v1/txt2img", {"prompt": "x", "width": 64, "height": 64, "steps": 1, **sent}).json()
    assert used.items() <= reply["parameters"].items()
    assert len(reply["images"]) == reply["parameters"]["num_images"]


def test_the_reply_says_which_random_seed_was_used(documented: LiveServer) -> None:
    body: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1, "seed": None}
    first = documented.post("/sdapi/v1/txt2img", body).json()
    again = documented.post("/sdapi/v1/txt2img", {**body, "seed": first["parameters"]["seed"]}).json()
    assert first["images"] == again["images"]
