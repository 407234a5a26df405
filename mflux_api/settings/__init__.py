"""Settings: their declaration, and their values with the origin of each."""

from mflux_api.settings.loading import LoadedSettings, describe, load, render_example
from mflux_api.settings.schema import (
    EngineSettings,
    GenerationSettings,
    LoggingSettings,
    ModelSettings,
    Option,
    QueueSettings,
    SecuritySettings,
    ServerSettings,
    Settings,
    StorageSettings,
    options,
)

__all__ = [
    "EngineSettings",
    "GenerationSettings",
    "LoadedSettings",
    "LoggingSettings",
    "ModelSettings",
    "Option",
    "QueueSettings",
    "SecuritySettings",
    "ServerSettings",
    "Settings",
    "StorageSettings",
    "describe",
    "load",
    "options",
    "render_example",
]
