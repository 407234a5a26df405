"""Every option once, and where its value came from."""

from mflux_api.settings.declared import (
    Engine,
    Generation,
    Logging,
    Models,
    Option,
    Queue,
    Security,
    Server,
    Settings,
    Storage,
    options,
)
from mflux_api.settings.loading import Loaded, describe, example, load

__all__ = [
    "Engine",
    "Generation",
    "Loaded",
    "Logging",
    "Models",
    "Option",
    "Queue",
    "Security",
    "Server",
    "Settings",
    "Storage",
    "describe",
    "example",
    "load",
    "options",
]
