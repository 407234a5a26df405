"""Exceptions that nobody expected: the reply passes through all other middleware and shows nothing of them."""

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from mflux_api.web.error_responses import ErrorHandlers, default_error_shape
from mflux_api.web.middleware import PrivateNetworkCorsMiddleware, RequestIdMiddleware, UnexpectedErrorMiddleware


async def fail(request: Request) -> Response:
    raise RuntimeError("a secret")


def test_a_page_of_another_origin_can_read_what_happened() -> None:
    cors = {name: ["*"] for name in ("allow_origins", "allow_methods", "allow_headers", "expose_headers")}
    app = Starlette(
        routes=[Route("/", fail)],
        middleware=[
            Middleware(RequestIdMiddleware),
            Middleware(PrivateNetworkCorsMiddleware, **cors),
            Middleware(UnexpectedErrorMiddleware, error_handlers=ErrorHandlers([], default_error_shape)),
        ],
    )
    reply = TestClient(app).get("/", headers={"Origin": "https://app.example"})
    assert (reply.status_code, reply.json()["code"]) == (500, "INTERNAL_ERROR")
    assert reply.headers["Access-Control-Allow-Origin"] == "*"
    assert reply.json()["request_id"] == reply.headers["X-Request-ID"]
    assert "secret" not in reply.text
