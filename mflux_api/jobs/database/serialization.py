"""Jobs to rows of the database and back."""

import functools
import json
import sqlite3
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from mflux_api.jobs.job import Failure, Inputs, Job, PictureFile, State
from mflux_api.request import Craft, GenerateRequest, LoraUse

PICTURE_FIELDS = ("references", "source", "further_sources", "mask", "latents")
CRAFT = TypeAdapter(Craft)


def pack_request(request: GenerateRequest) -> str:
    """A request without pictures as JSON. Those are kept as files."""
    craft = request.craft()
    plain = {name: value for name, value in vars(request).items() if name not in {*PICTURE_FIELDS, *craft}}
    changed = CRAFT.dump_python(Craft(**craft), exclude_defaults=True)
    return json.dumps({**plain, "craft": changed, "loras": [asdict(use) for use in request.loras]})


# A row is read several times while its job is being carried out.
@functools.lru_cache(maxsize=64)
def unpack_request(text: str) -> GenerateRequest:
    plain: dict[str, Any] = json.loads(text)
    loras = tuple(LoraUse(**use) for use in plain.pop("loras"))
    # Rows of an earlier version have none.
    craft = CRAFT.validate_python(plain.pop("craft", {}))
    return GenerateRequest(**{**plain, **vars(craft), "seeds": tuple(plain["seeds"]), "loras": loras})


def pack_pictures(pictures: tuple[PictureFile, ...]) -> str:
    return json.dumps([asdict(picture) for picture in pictures])


def pack_error(error: Failure | None) -> str | None:
    return None if error is None else json.dumps(asdict(error), default=str)


def pack_inputs(inputs: Inputs) -> str:
    return json.dumps(asdict(inputs))


def to_job(row: sqlite3.Row) -> Job:
    kept: dict[str, Any] = dict(row)
    return Job(
        **{name: kept[name] for name in PLAIN},
        state=State(kept["state"]),
        held=bool(kept["held"]),
        low_ram=bool(kept["low_ram"]),
        request=unpack_request(kept["request"]),
        inputs=Inputs(**{name: _frozen(value) for name, value in json.loads(kept["inputs"]).items()}),
        pictures=tuple(PictureFile(**picture) for picture in json.loads(kept["pictures"])),
        error=Failure(**json.loads(kept["error"])) if kept["error"] else None,
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


PLAIN = (
    *("id", "number", "priority", "place", "attempts", "owner", "key", "digest", "model"),
    *("created", "started", "finished"),
)
