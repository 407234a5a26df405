"""Convert jobs to database rows and back."""

import functools
import json
import sqlite3
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from mflux_api.jobs.job import Failure, Inputs, Job, PictureFile, State
from mflux_api.request import GenerateRequest, LoraUse, PaintOptions

CRAFT = TypeAdapter(PaintOptions)


def pack_request(request: GenerateRequest) -> str:
    """Return a request as JSON, without its pictures, which are stored as files."""
    return json.dumps(
        {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "width": request.width,
            "height": request.height,
            "steps": request.steps,
            "guidance": request.guidance,
            "seeds": request.seeds,
            "strength": request.strength,
            "loras": [asdict(use) for use in request.loras],
            "craft": CRAFT.dump_python(PaintOptions(**request.options_as_dict()), exclude_defaults=True),
        }
    )


# Cached: a row is read several times while its job is running.
@functools.lru_cache(maxsize=64)
def unpack_request(text: str) -> GenerateRequest:
    row: dict[str, Any] = json.loads(text)
    # Rows of earlier versions lack this key.
    craft = CRAFT.validate_python(row.get("craft", {}))
    return GenerateRequest(
        prompt=row["prompt"],
        negative_prompt=row["negative_prompt"],
        width=row["width"],
        height=row["height"],
        steps=row["steps"],
        guidance=row["guidance"],
        seeds=tuple(row["seeds"]),
        strength=row["strength"],
        loras=tuple(LoraUse(path=use["path"], scale=use["scale"]) for use in row["loras"]),
        **craft.options_as_dict(),
    )


def pack_pictures(pictures: tuple[PictureFile, ...]) -> str:
    # Whether a file is missing is looked up on every read: it may come back.
    rows = [{name: value for name, value in asdict(picture).items() if name != "missing"} for picture in pictures]
    return json.dumps(rows)


def pack_error(error: Failure | None) -> str | None:
    return None if error is None else json.dumps(asdict(error), default=str)


def pack_inputs(inputs: Inputs) -> str:
    return json.dumps(asdict(inputs))


def to_job(row: sqlite3.Row) -> Job:
    return Job(
        id=row["id"],
        number=row["number"],
        state=State(row["state"]),
        priority=row["priority"],
        place=row["place"],
        held=bool(row["held"]),
        attempts=row["attempts"],
        owner=row["owner"],
        key=row["key"],
        digest=row["digest"],
        model=row["model"],
        low_ram=bool(row["low_ram"]),
        request=unpack_request(row["request"]),
        inputs=_inputs(json.loads(row["inputs"])),
        pictures=tuple(_picture(picture) for picture in json.loads(row["pictures"])),
        error=_failure(json.loads(row["error"])) if row["error"] else None,
        created=row["created"],
        started=row["started"],
        finished=row["finished"],
    )


# Keys with a default below are missing in rows of earlier versions.


def _inputs(saved: dict[str, Any]) -> Inputs:
    return Inputs(
        source=saved["source"],
        mask=saved["mask"],
        references=tuple(saved["references"]),
        further_sources=tuple(saved.get("further_sources", ())),
        size=saved.get("size", 0),
    )


def _picture(saved: dict[str, Any]) -> PictureFile:
    return PictureFile(
        file=saved["file"],
        text=saved["text"],
        seed=saved["seed"],
        width=saved["width"],
        height=saved["height"],
        guidance=saved["guidance"],
        timings=saved["timings"],
        size=saved["size"],
        prompt=saved.get("prompt"),
        deleted=saved.get("deleted", False),
    )


def _failure(saved: dict[str, Any]) -> Failure:
    return Failure(saved["code"], saved["status"], saved["message"], saved["details"])
