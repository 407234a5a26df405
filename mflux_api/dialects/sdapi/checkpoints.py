"""/sdapi/v1: models as checkpoints of SD-WebUI, in its lists and by its names."""

from typing import Any

from mflux_api.jobs.service import JobService
from mflux_api.models.folders import normalise_name
from mflux_api.models.inventory import ModelEntry

SHORT_HASH = 10
SUFFIX = ".safetensors"


class Checkpoints:
    """The downloaded models that work from a prompt, and the default one, which is downloaded at its first use."""

    def __init__(self, service: JobService) -> None:
        self.service = service

    async def list_available(self) -> list[ModelEntry]:
        return self._filter_painters(await self.service.models.list_models())

    async def list_rows(self) -> list[dict[str, Any]]:
        return [build_row(entry) for entry in await self.list_available()]

    async def find(self, name: str) -> str | None:
        """Find a model by title, file name with or without suffix, or short or long hash, in any case."""
        wanted = normalise_name(name.strip()).removesuffix(SUFFIX)
        still = self._filter_painters(await self.service.models.list_still_present())
        return _find_by_name(wanted, still) or _find_by_name(wanted, await self.list_available())

    async def get_short_hash(self, name: str) -> str:
        found = [entry for entry in await self.service.models.list_models() if entry.spec.name == name]
        return _short_hash(found[0]) or "" if found else ""

    def _filter_painters(self, entries: list[ModelEntry]) -> list[ModelEntry]:
        default = self.service.models.default.lower()
        painters = [entry for entry in entries if not entry.spec.unavailable and entry.capabilities.from_words]
        return [entry for entry in painters if entry.is_downloaded or entry.spec.name.lower() == default]


def build_row(entry: ModelEntry) -> dict[str, Any]:
    name = entry.spec.name
    return {
        "title": name,
        "model_name": name,
        "hash": _short_hash(entry),
        "sha256": entry.fingerprint,
        "filename": f"{name}{SUFFIX}",
        "config": None,
    }


def _short_hash(entry: ModelEntry) -> str | None:
    return None if entry.fingerprint is None else entry.fingerprint[:SHORT_HASH]


def _find_by_name(wanted: str, entries: list[ModelEntry]) -> str | None:
    return next((entry.spec.name for entry in entries if wanted in _known_names(entry)), None)


def _known_names(entry: ModelEntry) -> set[str]:
    name = normalise_name(entry.spec.name)
    hashes = {_short_hash(entry), entry.fingerprint} - {None}
    return {name, *(text for text in hashes if text), *(f"{name} [{text}]" for text in hashes)}
