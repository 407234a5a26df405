"""/sdapi/v1: models as SD-WebUI lists and names checkpoints."""

from typing import Any

from mflux_api.jobs.service import JobService
from mflux_api.models.inventory import Entry

SHORT_HASH = 10
SUFFIX = ".safetensors"


class Checkpoints:
    """The models that can paint now, and the default one, which is downloaded when it is first used."""

    def __init__(self, service: JobService) -> None:
        self.service = service

    async def offered(self) -> list[Entry]:
        return self._painters(await self.service.models.listed())

    async def rows(self) -> list[dict[str, Any]]:
        return [row(entry) for entry in await self.offered()]

    async def find(self, name: str) -> str | None:
        """The model meant by a title, a file name with or without its suffix, a short or long hash; any case."""
        wanted = name.strip().lower().removesuffix(SUFFIX)
        still = self._painters(await self.service.models.still_here())
        return _named(wanted, still) or _named(wanted, await self.offered())

    async def short_hash(self, name: str) -> str:
        found = [entry for entry in await self.service.models.listed() if entry.spec.name == name]
        return _short(found[0]) or "" if found else ""

    def _painters(self, entries: list[Entry]) -> list[Entry]:
        default = self.service.models.default.lower()
        painters = [entry for entry in entries if not entry.spec.unavailable and entry.capabilities.from_words]
        return [entry for entry in painters if entry.is_here or entry.spec.name.lower() == default]


def row(entry: Entry) -> dict[str, Any]:
    name = entry.spec.name
    return {
        "title": name,
        "model_name": name,
        "hash": _short(entry),
        "sha256": entry.fingerprint,
        "filename": f"{name}{SUFFIX}",
        "config": None,
    }


def _short(entry: Entry) -> str | None:
    return None if entry.fingerprint is None else entry.fingerprint[:SHORT_HASH]


def _named(wanted: str, entries: list[Entry]) -> str | None:
    return next((entry.spec.name for entry in entries if wanted in _names(entry)), None)


def _names(entry: Entry) -> set[str]:
    name = entry.spec.name.lower()
    hashes = {_short(entry), entry.fingerprint} - {None}
    return {name, *(text for text in hashes if text), *(f"{name} [{text}]" for text in hashes)}
