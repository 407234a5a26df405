"""Bytes with an ETag, all of them or the one range that was asked for (RFC 9110, sections 13 and 14)."""

import hashlib
import re

from starlette.requests import Request
from starlette.responses import Response

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def bytes_reply(request: Request, data: bytes, media_type: str) -> Response:
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, max-age=3600"}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    asked = RANGE.fullmatch(request.headers.get("range", "").strip())
    # A part of something else than what the client has is of no use to it.
    if asked is None or asked.groups() == ("", "") or request.headers.get("if-range", etag) != etag:
        return Response(data, media_type=media_type, headers=headers)
    start, end = _span(asked[1], asked[2], len(data))
    if start >= len(data) or end < start:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
    part = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], 206, {**headers, "Content-Range": part}, media_type)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """First and last byte; without a first one, so many from the end."""
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1
