"""Local models for the model names of cloud services."""

from mflux_api.models.registry import load_cloud_names


def find_local_model(name: str) -> str | None:
    """Return the local model for a cloud's model name; None means the default model. Other names are unchanged."""
    return load_cloud_names().get(name.lower(), name)
