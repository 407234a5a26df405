"""Settings: their declaration, and their values with the origin of each."""

from mflux_api.settings.loading import Loaded, describe, example, load
from mflux_api.settings.schema import (
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
