"""Models by the names that clouds give them."""

from mflux_api.models.registry import cloud


def find_local_model(name: str) -> str | None:
    """The model that paints here under a cloud's name; None is the default one, and other names mean themselves."""
    return cloud().get(name.lower(), name)
