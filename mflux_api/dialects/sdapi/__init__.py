"""/sdapi/v1, the API of SD-WebUI."""

from mflux_api.dialects.sdapi.generate import Generate
from mflux_api.dialects.sdapi.wire import shape
from mflux_api.jobs.studio import Studio
from mflux_api.web.openapi import Endpoint
from mflux_api.web.tools import Tools

__all__ = ["endpoints", "shape"]


def endpoints(studio: Studio, tools: Tools) -> list[Endpoint]:
    return Generate(studio, tools).endpoints()
