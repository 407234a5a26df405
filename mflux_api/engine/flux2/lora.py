"""Apply LoRA adapters to a loaded transformer and remove them without any change to its weights.

Files are read and checked first, all of them. Only if every tensor has its place, layers are replaced by ones that wrap
them. mflux's own loader is not used: it drops what it does not know.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import mlx.core as mx
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from mlx import nn
from mlx.utils import tree_unflatten

from mflux_api.checkpoints.adapter_names import LayerNames
from mflux_api.engine.flux2.adapter_files import AdapterFile, build_updates, read_adapter
from mflux_api.engine.flux2.adapter_layers import AdaptedLinear, AdaptedNorm, Dense, Update, read_shape
from mflux_api.errors import LoraInvalid, LoraNotFound
from mflux_api.ipc.messages import LoraReport
from mflux_api.request import LoraUse

logger = logging.getLogger(__name__)
Stamp = tuple[str, int, int]
LAYERS = (nn.Linear, nn.QuantizedLinear, nn.RMSNorm)


@dataclass(frozen=True)
class FittedAdapters:
    """Adapters fitted together.

    `stamps`: path, mtime and size of each file. `updates`: by the layer's path in the transformer, in the order of the
    files. `reports`: one for each file.
    """

    stamps: tuple[Stamp, ...]
    updates: Mapping[str, Sequence[Update]]
    reports: tuple[LoraReport, ...]


class AdapterSet:
    """The adapters that are applied to a transformer."""

    def __init__(self, transformer: Flux2Transformer) -> None:
        self.transformer = transformer
        self._applied: FittedAdapters | None = None
        self._strengths: tuple[float, ...] | None = None
        self._originals: dict[str, nn.Module] = {}
        self._adapted: list[AdaptedLinear | AdaptedNorm] = []

    def apply(self, uses: tuple[LoraUse, ...]) -> tuple[LoraReport, ...]:
        """Apply exactly these adapters in place of the current ones.

        If the files are the same, only the scales are changed. A file that has changed on disk is read again. Raises
        LoraNotFound or LoraInvalid; after LoraInvalid no adapter is applied.
        """
        stamps = tuple(_stamp_file(use.path) for use in uses)
        if self._applied is None or self._applied.stamps != stamps:
            self.remove()
            if not uses:
                return ()
            self._attach(_fit_adapters(uses, stamps, self.transformer))
        return self._rescale(uses)

    def remove(self) -> None:
        """Restore the transformer's own layers."""
        self._replace_layers(self._originals)
        self._originals, self._adapted, self._applied, self._strengths = {}, [], None, None

    def _attach(self, fitted: FittedAdapters) -> None:
        layers = _list_layers(self.transformer)
        self._applied = fitted
        self._originals = {path: layers[path] for path in fitted.updates}
        adapted = {path: _adapt(layers[path], updates) for path, updates in fitted.updates.items()}
        self._adapted = list(adapted.values())
        self._replace_layers(adapted)

    def _replace_layers(self, layers: Mapping[str, nn.Module]) -> None:
        if layers:
            self.transformer.update_modules(tree_unflatten(list(layers.items())))

    def _rescale(self, uses: tuple[LoraUse, ...]) -> tuple[LoraReport, ...]:
        assert self._applied is not None
        strengths = tuple(use.scale for use in uses)
        if strengths != self._strengths:
            for updates in self._applied.updates.values():
                for update in updates:
                    update.strength = strengths[update.use_index]
            for layer in self._adapted:
                layer.prepare()
            self._strengths = strengths
        return tuple(
            replace(report, path=use.path, scale=use.scale)
            for report, use in zip(self._applied.reports, uses, strict=True)
        )


def _stamp_file(path: str) -> Stamp:
    try:
        status = Path(path).stat()
    except OSError:
        raise LoraNotFound(f"There is no LoRA file at {path}.", path=path) from None
    return path, status.st_mtime_ns, status.st_size


def _list_layers(transformer: Flux2Transformer) -> dict[str, nn.Module]:
    """Return the layers that adapters may change, by path."""
    found = {path: module for path, module in transformer.named_modules() if isinstance(module, LAYERS)}
    # Norms without weights have nothing to change.
    return {path: module for path, module in found.items() if "weight" in module}


def _fit_adapters(uses: Sequence[LoraUse], stamps: tuple[Stamp, ...], transformer: Flux2Transformer) -> FittedAdapters:
    layers = _list_layers(transformer)
    names = LayerNames(layers)
    updates: dict[str, list[Update]] = defaultdict(list)
    reports = []
    for number, use in enumerate(uses):
        file = read_adapter(use.path)
        fitted = build_updates(file, names, number)
        for target, update in fitted:
            _check_shapes(target.path, layers[target.path], update, use.path)
            mx.eval(update.list_arrays())
            updates[target.path].append(update)
        reports.append(_report(file, use, len({target.path for target, _ in fitted})))
    return FittedAdapters(stamps, updates, tuple(reports))


def _report(file: AdapterFile, use: LoraUse, layers: int) -> LoraReport:
    if file.left_out:
        logger.warning(
            "%s: %d tensors are not used, because they are not for the transformer: %s ...",
            Path(file.path).name,
            len(file.left_out),
            file.left_out[0],
        )
    keys = len(file.tensors)
    return LoraReport(path=use.path, scale=use.scale, layers=layers, keys=keys, total_keys=keys + len(file.left_out))


def _adapt(layer: nn.Module, updates: Sequence[Update]) -> AdaptedLinear | AdaptedNorm:
    return AdaptedNorm(layer, updates) if isinstance(layer, nn.RMSNorm) else AdaptedLinear(layer, updates)


def _check_shapes(path: str, layer: nn.Module, update: Update, file: str) -> None:
    rows, *columns = shape = read_shape(layer)
    found = None
    if update.delta is not None:
        is_norm_diff = isinstance(update.delta, Dense) and not columns
        found = update.delta.shape if columns or is_norm_diff else None
        if found != shape:
            raise LoraInvalid(
                f"{file}: {path} is {'x'.join(map(str, reversed(shape)))} in this model, {update.delta.describe()}.",
                layer=path,
            )
    lengths = {(rows, 1), (1, *columns)} if columns else set()
    if update.magnitude is not None and update.magnitude.shape not in lengths:
        raise LoraInvalid(f"{file}: the magnitudes of {path} are {update.magnitude.shape}.", layer=path)
    if update.bias is not None and (not columns or update.bias.shape != (rows,)):
        raise LoraInvalid(f"{file}: the bias of {path} is {update.bias.shape}, it has {rows} outputs.", layer=path)
