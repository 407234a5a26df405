"""Models by the names that clouds give them."""

from mflux_api.models.registry import load_cloud_names


def find_local_model(name: str) -> str | None:
    """The model that paints here under a cloud's name; None is the default one, and other names mean themselves."""
    return load_cloud_names().get(name.lower(), name)
