"""The models as clients see them: all known ones, which of them are on disk, and which are in memory."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mflux_api.checkpoints import detection
from mflux_api.checkpoints.capabilities import Capabilities, ModelFacts
from mflux_api.checkpoints.families import FAMILIES
from mflux_api.checkpoints.file_kinds import list_visible
from mflux_api.errors import MfluxError, ModelNotDownloaded, ModelUnsupported
from mflux_api.models import registry as catalogue
from mflux_api.models.registry import ModelSpec, ResolvedModel

GIGABYTE = 1000**3
REFRESH_SECONDS = 10.0


@dataclass(frozen=True)
class ModelEntry:
    """A listed model. `folder`, `size` (bytes on disk) and `fingerprint` are None if it is not downloaded.

    `capabilities`: read from the folder of a downloaded model, else from the registry.
    """

    spec: ModelSpec
    folder: Path | None
    size: int | None
    fingerprint: str | None
    capabilities: Capabilities

    @property
    def is_downloaded(self) -> bool:
        return self.folder is not None

    def is_still_downloaded(self) -> bool:
        """Return whether the folder still exists. Blocking."""
        return self.folder is not None and self.folder.is_dir()

    @property
    def size_gb(self) -> float | None:
        """Size on disk, or size of the download, in 10^9 bytes."""
        return self.spec.size_gb if self.size is None else round(self.size / GIGABYTE, 3)


@dataclass(frozen=True)
class Measured:
    """What was read from a folder. `changed`: modification times of it and its subfolders."""

    changed: tuple[int, ...]
    size: int
    fingerprint: str | None
    capabilities: Capabilities


@dataclass(frozen=True)
class ModelMemory:
    """Estimated memory of a model. `weights`: bytes once loaded. `fits`: whether this machine can paint with it."""

    weights: int
    fits: bool


@dataclass(frozen=True, kw_only=True)
class ModelLoader:
    """Functions of the engine for models. `loaded_names`: names of the models in memory now.

    `estimate_memory`: from a model's folder, or from the registry if that is None. Returns None if it is unknown.
    Blocking.
    """

    load: Callable[[ResolvedModel], Awaitable[None]]
    unload: Callable[[ResolvedModel], Awaitable[None]]
    loaded_names: Callable[[], Iterable[str]]
    estimate_memory: Callable[[ModelSpec, Path | None], ModelMemory | None]


class ModelInventory:
    """Models of the registry and of the folders in `models_dir`.

    The list is made on a thread and cached for REFRESH_SECONDS.
    """

    def __init__(self, models_dir: Path, default: str, engine: ModelLoader, *, follow_links: bool = True) -> None:
        self.models_dir = models_dir
        self.follow_links = follow_links
        known = catalogue.load_registry().get(default.lower())
        self.default = default if known is None else known.name
        self.engine = engine
        self.entries: list[ModelEntry] = []
        self._refreshed_at = -REFRESH_SECONDS
        self._refresh_lock = asyncio.Lock()
        self._measurements: dict[tuple[Path, str, ModelFacts], Measured] = {}

    async def list_models(self) -> list[ModelEntry]:
        async with self._refresh_lock:
            if time.monotonic() - self._refreshed_at > REFRESH_SECONDS:
                self.entries = await asyncio.to_thread(self._list_entries)
                self._refreshed_at = time.monotonic()
        return self.entries

    async def list_still_present(self) -> list[ModelEntry]:
        """Return the last list without models whose folders are gone.

        Faster than a new list, which takes about 10 ms. Sufficient when the wanted name is in it.
        """
        if time.monotonic() - self._refreshed_at <= REFRESH_SECONDS:
            return self.entries
        return await asyncio.to_thread(lambda: [entry for entry in self.entries if entry.is_still_downloaded()])

    def invalidate(self) -> None:
        """Discard the cached list, because files were added or deleted."""
        self._refreshed_at = -REFRESH_SECONDS

    @property
    def ready_count(self) -> int:
        """Number of models in the last list that can paint now."""
        return sum(
            entry.is_downloaded and not entry.spec.unavailable and entry.capabilities.from_words
            for entry in self.entries
        )

    async def find_spec(self, name: str | None) -> ModelSpec:
        """Return the model of this name, in any case; None means the default model. Raises ModelNotFound."""
        return await asyncio.to_thread(self.find_spec_blocking, name)

    def find_spec_blocking(self, name: str | None) -> ModelSpec:
        """Like `find_spec`. Blocking."""
        return self._find_model(self._name_or_default(name))[0]

    def resolve_model(self, name: str | None) -> ResolvedModel:
        """Find a model that can paint now. Blocking.

        Raises ModelNotFound, ModelNotDownloaded, ModelUnsupported.
        """
        return self._resolve(self._name_or_default(name))

    async def read_entry(self, name: str) -> ModelEntry:
        """Return the current entry of one model, without the cached list. Raises ModelNotFound."""
        spec, located = await self._find_in_thread(name)
        return await asyncio.to_thread(self._make_entry, spec, located)

    def is_loaded(self, entry: ModelEntry) -> bool:
        return entry.spec.name in set(self.engine.loaded_names())

    async def estimate_memory(self, entries: Iterable[ModelEntry]) -> dict[str, ModelMemory | None]:
        """Return the memory that each model takes, by name. Omits models that are unavailable."""
        usable = [entry for entry in entries if not entry.spec.unavailable]
        estimate = self.engine.estimate_memory
        return await asyncio.to_thread(lambda: {each.spec.name: estimate(each.spec, each.folder) for each in usable})

    async def load(self, name: str) -> None:
        """Load a model. Raises what `resolve_model` and loading raise."""
        await self.engine.load(await asyncio.to_thread(self.resolve_model, name))

    async def unload(self, name: str) -> None:
        _, located = await self._find_in_thread(name)
        if located is not None:
            await self.engine.unload(located)

    def _name_or_default(self, name: str | None) -> str:
        return self.default if name is None else name

    async def _find_in_thread(self, name: str) -> tuple[ModelSpec, ResolvedModel | None]:
        return await asyncio.to_thread(self._find_model, name)

    def _find_model(self, name: str) -> tuple[ModelSpec, ResolvedModel | None]:
        try:
            located = self._resolve(name)
        except (ModelNotDownloaded, ModelUnsupported):
            return catalogue.find_spec(name), None
        return located.spec, located

    def _resolve(self, name: str) -> ResolvedModel:
        return catalogue.resolve_client_model(name, self.models_dir, follow_links=self.follow_links)

    def _list_entries(self) -> list[ModelEntry]:
        found = [*catalogue.load_registry().values(), *self._find_unregistered()]
        return [self._make_entry(*self._find_model(spec.name)) for spec in found]

    def _find_unregistered(self) -> Iterable[ModelSpec]:
        return catalogue.find_unregistered_models(self.models_dir, follow_links=self.follow_links)

    def _make_entry(self, spec: ModelSpec, located: ResolvedModel | None) -> ModelEntry:
        if located is None:
            return ModelEntry(spec, None, None, None, spec.capabilities)
        found = self._measure_folder(spec, located.folder)
        return ModelEntry(spec, located.folder, found.size, found.fingerprint, spec.adjust(found.capabilities))

    def _measure_folder(self, spec: ModelSpec, folder: Path) -> Measured:
        key, changed = (folder, spec.family, spec.facts), _stamp_folders(folder)
        known = self._measurements.get(key)
        if known is None or known.changed != changed:
            size, fingerprint = detection.measure_disk_usage(folder), detection.compute_fingerprint(folder)
            known = Measured(changed, size, fingerprint, _capabilities(spec, folder))
            self._measurements[key] = known
        return known


def _stamp_folders(folder: Path) -> tuple[int, ...]:
    """Return the modification times of a folder and its subfolders: a file arrives in one of them."""
    inside = [path for path in (list_visible(folder) if folder.is_dir() else []) if path.is_dir()]
    return tuple(path.stat().st_mtime_ns for path in (folder, *inside))


def _capabilities(spec: ModelSpec, folder: Path) -> Capabilities:
    """Read the capabilities from the folder, or from the registry if the folder cannot be read.

    The error itself is reported when the model is loaded.
    """
    family = FAMILIES[spec.family]
    try:
        return family.read_capabilities(folder, spec.facts)
    except (MfluxError, OSError, ArithmeticError, LookupError, TypeError, ValueError):
        return family.capabilities_of(spec.facts)
