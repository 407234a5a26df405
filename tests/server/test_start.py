"""Starting and stopping."""

from tests.server.live import Live


def test_it_is_healthy(server: Live) -> None:
    health = server.get("/api/v1/health").json()
    assert health["status"] == "healthy"
    assert health["models_available"] >= 10
