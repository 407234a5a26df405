"""/openapi.json matches the server's behaviour, and /docs works without a network."""

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from mflux_api import errors
from mflux_api.app.application import build_app
from mflux_api.settings import Settings
from mflux_api.web.static_files import PATHS
from tests.support.live_server import LiveServer

pytestmark = pytest.mark.system

PAGES = {"/openapi.json", *PATHS}
# Routes that stream without end, stop the queue or download.
ENDLESS = r"/stream$|/events$|/download$|/queue/pause$"
FOREIGN = re.compile(r"https?:|//[a-z0-9-]+\.[a-z]|@import|\burl\(", re.IGNORECASE)
SMALL = (
    *("generation.max_side=64", "generation.default_width=64", "generation.default_height=64"),
    *("generation.max_steps=1", "generation.default_steps=1", "generation.max_batch_size=1"),
    "models.auto_download=false",
)
# Two checks do not apply: "25.0" is accepted for 25, and the generator does not produce pictures in base64.
UNFIT = "positive_data_acceptance,negative_data_rejection"
# SD-WebUI answers some client errors with 500, and its clients depend on that.
CLASSIC = r"/sdapi/v1/(txt2img|img2img|options|png-info|extra-.*)$"
HOW = [
    *("--phases", "examples,coverage,fuzzing", "--max-examples", "8", "--no-shrink", "--generation-database", "none"),
    *("--checks", "all", "--request-timeout", "30", "--warnings", "off", "--no-color"),
]


@pytest.fixture(scope="module")
def described(server: LiveServer) -> dict[str, Any]:
    reply = server.get("/openapi.json")
    assert reply.headers["Content-Type"] == "application/json"
    found: dict[str, Any] = reply.json()
    return found


def operations(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, found in described["paths"].items()
        for method, operation in found.items()
    ]


# The description


def test_it_is_valid(described: dict[str, Any]) -> None:
    # Takes a second to import.
    from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

    assert described["openapi"].startswith("3.1.")
    assert [error.message for error in OPENAPI_31_VALIDATOR.iter_errors(described)] == []


def test_every_reference_leads_somewhere(described: dict[str, Any]) -> None:
    references = set(re.findall(r"'\$ref': '([^']+)'", str(described)))
    assert references
    schemas = described["components"]["schemas"]
    assert references <= {f"#/components/schemas/{name}" for name in schemas}


def test_every_route_is_in_it_and_nothing_else(described: dict[str, Any], tmp_path: Path) -> None:
    # The compatibility dialects are not part of this description.
    chosen = Settings.model_validate({"generation": {"output_dir": tmp_path}, "dialects": {"enabled": []}})
    routes = [route for route in build_app(chosen).routes if isinstance(route, Route)]
    served = {(method, route.path) for route in routes for method in (route.methods or ()) if method != "HEAD"}
    listed = {(method, path) for method, path, _ in operations(described)}
    assert served - listed == {("GET", path) for path in (*PAGES, "/files/{job_id}/{name}")}
    assert listed <= served


def test_every_operation_has_a_name_of_its_own(described: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(described)]
    assert len(set(names)) == len(names)


def test_every_part_of_a_path_is_described(described: dict[str, Any]) -> None:
    for _, path, operation in operations(described):
        described_names = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert described_names == set(re.findall(r"\{(\w+)\}", path))


def test_every_documented_code_belongs_to_its_status(described: dict[str, Any]) -> None:
    known = {(str(kind.status), kind.code) for kind in errors.list_error_types()}
    for _, path, operation in operations(described):
        for status, reply in operation["responses"].items():
            if status not in {"200", "default"}:
                assert {(status, code) for code in reply["description"].split(", ")} <= known, path


def test_every_reply_but_success_is_described_as_an_error(described: dict[str, Any]) -> None:
    for _, _, operation in operations(described):
        for status, reply in operation["responses"].items():
            if status != "200":
                schema = reply["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}


@pytest.mark.parametrize("path", ["/api/v1/generate", "/sdapi/v1/txt2img", "/sdapi/v1/img2img"])
def test_an_order_describes_each_of_its_fields(described: dict[str, Any], path: str) -> None:
    reference = described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = described["components"]["schemas"][reference.rpartition("/")[2]]
    assert {"prompt", "model", "guidance", "num_images", "lora_files", "image_strength"} <= set(schema["properties"])
    assert "prompt" in schema["required"]
    assert all(field.get("description") for field in schema["properties"].values())


def test_it_says_when_a_key_is_needed(described: dict[str, Any], guarded: LiveServer) -> None:
    assert described["security"] == []
    named = {name for choice in guarded.get("/openapi.json").json()["security"] for name in choice}
    assert named == set(described["components"]["securitySchemes"])


# The pages


@pytest.mark.parametrize("path", sorted(PATHS))
def test_a_page_needs_no_network(server: LiveServer, path: str) -> None:
    reply = server.get(path)
    assert reply.status_code == 200
    # Addresses in XML namespaces and in texts of licences are never requested.
    assert path.endswith(".txt") or not FOREIGN.search(reply.text.replace("http://www.w3.org/", ""))
    assert "unsafe" not in reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]


@pytest.mark.parametrize(("path", "least"), [("/", 3), ("/docs", 2)])
def test_a_page_loads_only_what_is_served(server: LiveServer, path: str, least: int) -> None:
    text = server.get(path).text
    loaded = {*re.findall(r'(?:src|href)="([^"]+)"', text)}
    assert len(loaded & set(PATHS)) >= least
    assert all(server.get(path).status_code == 200 for path in loaded)
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|<style|\sstyle=", text), "nothing in line"


def test_an_unchanged_file_is_not_sent_again(server: LiveServer) -> None:
    first = server.get("/studio/app.js")
    second = server.get("/studio/app.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (second.status_code, second.content) == (304, b"")


def test_the_first_paint_takes_less_than_150_kilobytes(server: LiveServer) -> None:
    loaded = [path for path in PATHS if not path.startswith("/docs") and not path.endswith(".txt")]
    assert sum(len(server.get(path).content) for path in loaded) < 150_000
