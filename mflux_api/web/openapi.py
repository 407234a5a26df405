"""Endpoint declarations, from which both Starlette's routes and /openapi.json are made."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mflux_api.errors import MfluxError
from mflux_api.version import __version__

Handler = Callable[[Request], Awaitable[Response]]
REF = "#/components/schemas/{model}"
PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True)
class Endpoint:
    """Declaration of an endpoint. `reply`: a model for JSON, or a media type. `headers`: name -> description."""

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    reply: type[BaseModel] | str
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: Mapping[str, str] | None = None
    errors: tuple[type[MfluxError], ...] = ()

    def build_route(self) -> Route:
        async def handle(request: Request) -> Response:
            request.scope.setdefault("state", {})["route"] = self.path
            return await self.handler(request)

        return Route(self.path, handle, methods=[self.method], name=f"{self.method} {self.path}")

    @property
    def models(self) -> list[type[BaseModel]]:
        named = (self.body, self.query, self.reply)
        return [model for model in named if isinstance(model, type)]


class Problem(BaseModel):
    """Body of every error reply."""

    error: str
    code: str
    details: dict[str, Any]
    request_id: str


def build_openapi(title: str, endpoints: Iterable[Endpoint], *, requires_key: bool) -> dict[str, Any]:
    """Make the OpenAPI 3.1 document of the endpoints. `requires_key`: an API key is required."""
    listed = list(endpoints)
    models = list(dict.fromkeys([Problem, *(model for endpoint in listed for model in endpoint.models)]))
    inputs = [(model, "validation") for model in models]
    _, schemas = models_json_schema(inputs, ref_template=REF)  # type: ignore[arg-type]
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in listed:
        path = PARAMETER.sub(r"{\1}", endpoint.path)
        paths.setdefault(path, {})[endpoint.method.lower()] = _build_operation(endpoint, schemas["$defs"])
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas["$defs"], "securitySchemes": SCHEMES},
        "security": [{name: []} for name in SCHEMES] if requires_key else [],
    }


SCHEMES = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "bearer": {"type": "http", "scheme": "bearer"},
}


def _build_operation(endpoint: Endpoint, schemas: Mapping[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").strip("_"),
        "parameters": [
            *_path_parameters(endpoint),
            *_query_parameters(endpoint, schemas),
            *_header_parameters(endpoint),
        ],
        "responses": {"200": _success_response(endpoint), **_error_responses(endpoint)},
    }
    if endpoint.body is not None:
        content = {"application/json": {"schema": _schema_ref(endpoint.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    names = PARAMETER.findall(endpoint.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query_parameters(endpoint: Endpoint, schemas: Mapping[str, Any]) -> list[dict[str, Any]]:
    if endpoint.query is None:
        return []
    properties = schemas[endpoint.query.__name__].get("properties", {})
    return [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]


def _header_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    text = {"type": "string"}
    return [
        {"name": name, "in": "header", "description": purpose, "schema": text}
        for name, purpose in (endpoint.headers or {}).items()
    ]


def _success_response(endpoint: Endpoint) -> dict[str, Any]:
    if isinstance(endpoint.reply, str):
        return {"description": "Success", "content": {endpoint.reply: {}}}
    return {"description": "Success", "content": {"application/json": {"schema": _schema_ref(endpoint.reply)}}}


def _error_responses(endpoint: Endpoint) -> dict[str, Any]:
    """Describe the error replies: one entry per status, listing its error codes."""
    found: dict[str, list[str]] = {}
    for kind in endpoint.errors:
        codes = found.setdefault(str(kind.status), [])
        if kind.code not in codes:
            codes.append(kind.code)
    content = {"application/json": {"schema": _schema_ref(Problem)}}
    listed = {status: ", ".join(codes) for status, codes in found.items()}
    described = {**listed, "default": "Any error"}.items()
    return {status: {"description": text, "content": content} for status, text in described}


def _schema_ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}
