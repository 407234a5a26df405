"""Jobs to rows of the database and back."""

import json
import sqlite3
from dataclasses import asdict
from typing import Any

from mflux_api.jobs.job import Failure, Inputs, Job, PictureFile, State
from mflux_api.request import GenerateRequest, LoraUse

PICTURE_FIELDS = ("references", "source", "mask", "latents")


def pack_request(request: GenerateRequest) -> str:
    """A request without pictures as JSON. Those are kept as files."""
    fields = {name: value for name, value in vars(request).items() if name not in PICTURE_FIELDS}
    return json.dumps({**fields, "loras": [asdict(use) for use in request.loras]})


def unpack_request(text: str) -> GenerateRequest:
    fields: dict[str, Any] = json.loads(text)
    loras = tuple(LoraUse(**use) for use in fields.pop("loras"))
    return GenerateRequest(**{**fields, "seeds": tuple(fields["seeds"]), "loras": loras})


def pack_pictures(pictures: tuple[PictureFile, ...]) -> str:
    return json.dumps([asdict(picture) for picture in pictures])


def pack_error(error: Failure | None) -> str | None:
    return None if error is None else json.dumps(asdict(error), default=str)


def pack_inputs(inputs: Inputs) -> str:
    return json.dumps(asdict(inputs))


def to_job(row: sqlite3.Row) -> Job:
    fields: dict[str, Any] = dict(row)
    inputs = json.loads(fields["inputs"])
    return Job(
        **{name: fields[name] for name in PLAIN},
        state=State(fields["state"]),
        held=bool(fields["held"]),
        low_ram=bool(fields["low_ram"]),
        request=unpack_request(fields["request"]),
        inputs=Inputs(**{**inputs, "references": tuple(inputs["references"])}),
        pictures=tuple(PictureFile(**picture) for picture in json.loads(fields["pictures"])),
        error=Failure(**json.loads(fields["error"])) if fields["error"] else None,
    )


PLAIN = (
    *("id", "number", "priority", "attempts", "owner", "key", "digest", "model"),
    *("created", "started", "finished"),
)
