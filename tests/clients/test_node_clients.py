"""The npm packages for SD-WebUI's API, under Node.js against a real server."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.live_server import LiveServer

pytestmark = [pytest.mark.system, pytest.mark.node]

CLIENTS = Path(__file__).parent / "node" / "clients.mjs"
PNG = "png"


@pytest.fixture(scope="module")
def client_results(server: LiveServer) -> dict[str, dict[str, Any]]:
    """Run the packages and return what each one read from the server's replies."""
    modules = Path(sys.prefix) / "node"
    command = ["node", str(CLIENTS), str(modules), server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def test_stable_diffusion_api_paints_enlarges_and_repaints(client_results: dict[str, dict[str, Any]]) -> None:
    client = client_results["stable-diffusion-api"]
    assert client["painted"] == [64, 64, PNG]
    assert client["seed"] == 7
    assert client["hires"] == [96, 96, PNG]
    assert client["repainted"] == 2
    assert client["inpainted"] == [64, 64, PNG]


def test_stable_diffusion_api_uses_the_extras(client_results: dict[str, dict[str, Any]]) -> None:
    client = client_results["stable-diffusion-api"]
    assert client["extra"] == [128, 128, PNG]
    assert client["batch"] == [[128, 128, PNG]] * 2
    # It re-encodes pictures and so drops their metadata.
    assert client["info"] == {}
    # Without a captioner there is no such endpoint.
    assert client["missing"] == 404


def test_stable_diffusion_api_reads_and_writes_options(client_results: dict[str, dict[str, Any]]) -> None:
    client = client_results["stable-diffusion-api"]
    assert (client["written"], client["changed"], client["model"]) == (None, True, "flux2-tiny")


def test_stable_diffusion_api_reads_the_lists(client_results: dict[str, dict[str, Any]]) -> None:
    client = client_results["stable-diffusion-api"]
    lists = client["lists"]
    assert "flux2-tiny" in [row["title"] for row in lists["getSdModels"]]
    assert [row["name"] for row in lists["getUpscalers"]][:3] == ["None", "Lanczos", "Nearest"]
    assert [row["name"] for row in lists["getSamplers"]] == ["Euler"]
    assert lists["getHypernetworks"] == lists["getFaceRestorers"] == lists["getPromptStyles"] == []
    assert (client["progress"]["progress"], client["progress"]["state"]["job_count"]) == (0, 0)
    assert client["ready"] is True


def test_node_sd_webui_paints_and_repaints(client_results: dict[str, dict[str, Any]]) -> None:
    client = client_results["node-sd-webui"]
    assert (client["painted"], client["repainted"], client["hires"]) == (1, 2, [96, 96, PNG])


def test_node_sd_webui_reads_an_infotext_by_the_places_of_its_facts(client_results: dict[str, dict[str, Any]]) -> None:
    info = client_results["node-sd-webui"]["info"]
    expected = {"steps": 2, "cfgScale": 1, "seed": 7, "width": 64, "height": 64, "samplingMethod": "Euler"}
    assert {name: info[name] for name in expected} == expected
    assert (info["prompt"], info["negativePrompt"]) == ("a red circle", "a square")
    assert info["model"] == "flux2-tiny"
