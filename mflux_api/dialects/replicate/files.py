"""/replicate/v1/files: upload a file, and name its address as the input of a prediction."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.dialects.replicate.predictions import PREFIX
from mflux_api.errors import InvalidRequest, LinkExpired, StorageFailed, UploadNotFound, UploadsFull
from mflux_api.web.context import HttpContext, get_owner
from mflux_api.web.openapi import Endpoint
from mflux_api.web.signed_urls import FILES_PREFIX
from mflux_api.web.uploaded_files import UploadedFile
from mflux_api.wire.order_form import BODY_ERRORS

TAG = "replicate"
JSON = "application/json"
PATH = f"{PREFIX}/files"
# Beside the other signed addresses, which need no key.
CONTENT = f"{FILES_PREFIX}/uploads/{{id}}/content"
PAGE = 100
LONGEST_NAME, LONGEST_TYPE, LONGEST_METADATA = 255, 100, 64 * 1024
PICTURES = {"image/png", "image/jpeg", "image/webp", "image/gif"}
# Uploaded files are never pages of this server: they would run with the rights of its own.
SAFE = {"Content-Disposition": "attachment", "Content-Security-Policy": "default-src 'none'; sandbox"}


class FileEndpoints:
    """Handlers of uploaded files. Each API key sees its own."""

    def __init__(self, context: HttpContext) -> None:
        self.context = context
        self.uploads = context.uploads

    async def create(self, request: Request) -> Response:
        form = await self.context.body.read_form(request)
        content = form.get("content")
        if content is None:
            raise InvalidRequest("content: send the file in a multipart form.", field="content")
        data = await content.read() if isinstance(content, UploadFile) else content.encode()
        named = content.filename if isinstance(content, UploadFile) else None
        kind = content.content_type if isinstance(content, UploadFile) else None
        file = await asyncio.to_thread(
            self.uploads.save,
            data,
            name=_clean_name(await _read_text(form, "filename") or named or "file"),
            content_type=(await _read_text(form, "type") or kind or "application/octet-stream")[:LONGEST_TYPE],
            metadata=_parse_metadata(await _read_text(form, "metadata")),
            owner=get_owner(request),
        )
        return JSONResponse(self._describe(request, file), 201)

    async def list_files(self, request: Request) -> Response:
        found = await asyncio.to_thread(self.uploads.list_files, get_owner(request))
        results = [self._describe(request, file) for file in found[:PAGE]]
        return JSONResponse({"next": None, "previous": None, "results": results})

    async def get_file(self, request: Request) -> Response:
        return JSONResponse(self._describe(request, await self._find(request)))

    async def delete_file(self, request: Request) -> Response:
        file = await self._find(request)
        await asyncio.to_thread(self.uploads.delete, file.id)
        return Response(status_code=204)

    async def download(self, request: Request) -> Response:
        self.context.signed_urls.verify(request.url.path, request.query_params)
        file_id = request.path_params["id"]
        file = await asyncio.to_thread(self.uploads.get, file_id)
        data = await asyncio.to_thread(self.uploads.read, file_id)
        kind = file.content_type if file.content_type in PICTURES else "application/octet-stream"
        return Response(data, media_type=kind, headers=SAFE)

    async def _find(self, request: Request) -> UploadedFile:
        """Return the description of the request's file. Raises UploadNotFound, for the files of other owners too."""
        file = await asyncio.to_thread(self.uploads.get, request.path_params["id"])
        if file.owner != get_owner(request):
            raise UploadNotFound("There is no such file, or it has expired.")
        return file

    def _describe(self, request: Request, file: UploadedFile) -> dict[str, Any]:
        signed_urls = self.context.signed_urls
        base = signed_urls.base_url(request)
        return {
            "id": file.id,
            "name": file.name,
            "content_type": file.content_type,
            "size": file.size,
            "etag": file.md5,
            "checksums": {"sha256": file.sha256, "md5": file.md5},
            "metadata": dict(file.metadata),
            "created_at": _format_time(file.created),
            "expires_at": _format_time(file.expires),
            "urls": {
                "get": f"{base}{PATH}/{file.id}",
                "download": signed_urls.sign_path(base, CONTENT.format(id=file.id)),
            },
        }

    def endpoints(self) -> list[Endpoint]:
        one, errors = f"{PATH}/{{id}}", (UploadNotFound,)
        upload = (*BODY_ERRORS, StorageFailed, UploadsFull)
        return [
            Endpoint("POST", PATH, self.create, "Upload a file", TAG, JSON, errors=upload),
            Endpoint("GET", PATH, self.list_files, "The uploaded files, newest first", TAG, JSON),
            Endpoint("GET", one, self.get_file, "An uploaded file", TAG, JSON, errors=errors),
            Endpoint("DELETE", one, self.delete_file, "Delete it", TAG, JSON, errors=errors),
            Endpoint(
                *("GET", CONTENT, self.download, "Its content", TAG, "application/octet-stream"),
                errors=(UploadNotFound, LinkExpired),
            ),
        ]


async def _read_text(form: FormData, name: str) -> str:
    """Return a field of the form. The JavaScript client sends text as files."""
    value = form.get(name)
    if isinstance(value, UploadFile):
        return (await value.read()).decode(errors="replace")
    return value or ""


def _clean_name(name: str) -> str:
    """Strip folders and control characters from a client's file name."""
    last = PurePosixPath(name.replace("\\", "/")).name
    return "".join(letter for letter in last if letter.isprintable())[:LONGEST_NAME] or "file"


def _parse_metadata(text: str) -> dict[str, Any]:
    """Parse the metadata, a JSON object. Raises InvalidRequest."""
    try:
        found = json.loads(text or "{}")
        json.dumps(found, allow_nan=False).encode()
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or len(text) > LONGEST_METADATA:
        raise InvalidRequest("metadata must be a JSON object of at most 64 KiB.", field="metadata")
    return found


def _format_time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
