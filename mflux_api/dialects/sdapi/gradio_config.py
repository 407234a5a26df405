"""The description of SD-WebUI's web page, which some clients read for its choices and its login."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.dialects.sdapi.checkpoints import Checkpoints
from mflux_api.dialects.sdapi.errors import JSON, TAG
from mflux_api.dialects.sdapi.lists import SAMPLERS
from mflux_api.pixels.enlarging import LATENT_UPSCALERS, NONE
from mflux_api.version import __version__
from mflux_api.web.openapi import Endpoint


class GradioConfigEndpoints:
    """Handlers of the web page's description. `upscalers`: returns the names of usable upscalers."""

    def __init__(self, checkpoints: Checkpoints, upscalers: Callable[[], Awaitable[list[str]]]) -> None:
        self.checkpoints = checkpoints
        self.upscalers = upscalers

    async def get_config(self, request: Request) -> Response:
        """Return the part of Gradio's description that clients read: choices by `elem_id`."""
        upscalers = await self.upscalers()
        loras = [file.name for file in await self.checkpoints.service.list_loras()]
        choices = {
            "setting_sd_model_checkpoint": [row["title"] for row in await self.checkpoints.list_rows()],
            "setting_sd_lora": [NONE, *loras],
            "txt2img_sampling": [row["name"] for row in SAMPLERS],
            "img2img_sampling": [row["name"] for row in SAMPLERS],
            "txt2img_hr_upscaler": [*LATENT_UPSCALERS, *upscalers],
            "extras_upscaler_1": upscalers,
            "extras_upscaler_2": upscalers,
        }
        components = [_dropdown(number, *entry) for number, entry in enumerate(choices.items(), start=1)]
        return JSONResponse(
            {"version": __version__, "mode": "blocks", "components": components, "dependencies": [], "title": "MFLUX"}
        )

    async def get_user(self, request: Request) -> Response:
        """Return null: the web page has no users."""
        return JSONResponse(None)

    def endpoints(self) -> list[Endpoint]:
        choices, user = "Choices of SD-WebUI's page, for its clients", "Who is logged in to SD-WebUI's page: nobody"
        return [
            Endpoint("GET", "/config", self.get_config, choices, TAG, JSON),
            Endpoint("GET", "/login_check", self.get_user, user, TAG, JSON),
            Endpoint("GET", "/user", self.get_user, user, TAG, JSON),
        ]


def _dropdown(number: int, name: str, choices: list[str]) -> dict[str, Any]:
    props = {"elem_id": name, "choices": choices, "value": choices[0] if choices else None, "visible": True}
    return {"id": number, "type": "dropdown", "props": {**props, "name": "dropdown"}}
