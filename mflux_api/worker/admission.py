"""Check that a picture fits into memory, when a job is submitted and again before it is painted."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from mflux_api.checkpoints.families import FAMILIES
from mflux_api.checkpoints.memory_estimate import BUDGET_SHARE, Machine, MemoryEstimate, estimate_from_counts
from mflux_api.errors import InvalidImage, MfluxError, OutOfMemory, strip_folders
from mflux_api.jobs.job import Job
from mflux_api.models.inventory import ModelMemory
from mflux_api.models.registry import ModelSpec, ResolvedModel, resolve_client_model
from mflux_api.pixels.decoding import read_size
from mflux_api.request import GenerateRequest
from mflux_api.worker.engine_process import EngineProcess

GIB = 1024**3
# The assumed machine until the engine has started and reported its own.
MAC, OTHERS = Machine(device="metal", bytes_per_value=2), Machine(device="cpu", bytes_per_value=4)
ASSUMED = MAC if sys.platform == "darwin" else OTHERS
# For how long the last check stays valid.
RECENT_SECONDS = 1.0


@dataclass(frozen=True)
class AdmittedRequest:
    """The last request that passed. `at`: monotonic seconds."""

    model: ResolvedModel
    request: GenerateRequest
    low_ram: bool
    at: float


class Admission:
    """Checks requests against the engine's memory budget. `inputs_dir`: folder of the jobs' input pictures."""

    def __init__(self, engine: EngineProcess, models_dir: Path, inputs_dir: Path, *, follow_links: bool = True) -> None:
        self.engine = engine
        self.models_dir = models_dir
        self.inputs_dir = inputs_dir
        self.follow_links = follow_links
        self._latest: AdmittedRequest | None = None

    def check_request(
        self, model: ResolvedModel, request: GenerateRequest, references: Sequence[tuple[int, int]], low_ram: bool
    ) -> None:
        """Check that a request can be painted. `references`: sizes of the reference pictures in pixels.

        Raises OutOfMemory if it does not fit into memory, ModelUnsupported if the model cannot upsample the prompt.
        Memory is not checked before the engine has started, because its budget is not known until then.
        """
        if request.upsample:
            family = FAMILIES[model.spec.family]
            with _hide_folders(model):
                family.check_upsampling(family.read(model.folder, model.spec.facts))
        if self.engine.last_ready is None:
            return
        needed = self._estimate_memory(model, request, references).peak(low_ram=low_ram)
        budget = self.engine.last_ready.budget
        if needed > budget:
            raise OutOfMemory(
                "Insufficient memory. Try using a quantized model or low_ram mode",
                suggestion="Use flux2-klein-4b-mlx-4bit or set low_ram=true",
                needed_gb=round(needed / GIB, 2),
                budget_gb=round(budget / GIB, 2),
            )
        self._latest = AdmittedRequest(model, request, low_ram, time.monotonic())

    def admit_job(self, job: Job) -> ResolvedModel:
        """Check a job before it is painted and return its model. Blocks on file access.

        The check at submission is not enough: it is skipped while the engine starts or the model is missing, a restart
        may change the budget, and the model may have been deleted. Raises the errors of `resolve_client_model` and
        `check_request`.
        """
        model = resolve_client_model(job.model, self.models_dir, follow_links=self.follow_links)
        sizes = [size for file in job.inputs.references if (size := _read_size(self.inputs_dir / file))]
        self.check_request(model, job.request, sizes, job.low_ram)
        return model

    def find_admitted(self, job: Job) -> ResolvedModel | None:
        """Like `admit_job` without file access, for a job without pictures that was just checked; None for others."""
        latest = self._latest
        if latest is None or time.monotonic() - latest.at > RECENT_SECONDS:
            return None
        admitted = (latest.model.spec.name, latest.request, latest.low_ram)
        return latest.model if admitted == (job.model, job.request, job.low_ram) and not job.inputs.files else None

    def estimate_memory(self, spec: ModelSpec, folder: Path | None) -> ModelMemory | None:
        """Estimate the memory of a model with a picture of the size that suits it.

        Returns None for a folder that cannot be read, and for a missing model of unknown size.
        """
        can = spec.capabilities
        if folder is None:
            if not spec.parameters:
                return None
            found = estimate_from_counts(
                spec.parameters, spec.bits, self._machine.bytes_per_value, takes_turns=spec.facts.guidance_embeds
            )
        else:
            model, size = ResolvedModel(spec, folder), (can.native_side, can.native_side)
            try:
                found = self._estimate(model, size=size, references=(), pictures=1, upsample=False)
            except (MfluxError, OSError):
                return None
        return ModelMemory(weights=found.weights, fits=found.peak(low_ram=False) <= self._budget)

    @property
    def _budget(self) -> int:
        """Bytes for models. Before the engine's first start: what it will have on a machine with one kind of memory."""
        if self.engine.last_ready is not None:
            return self.engine.last_ready.budget
        return self.engine.setup.budget or int(psutil.virtual_memory().total * BUDGET_SHARE)

    @property
    def _machine(self) -> Machine:
        known_machine = self.engine.last_ready
        if known_machine is None:
            return ASSUMED
        return Machine(device=known_machine.device, bytes_per_value=known_machine.bytes_per_value)

    def _estimate_memory(
        self, model: ResolvedModel, request: GenerateRequest, references: Sequence[tuple[int, int]]
    ) -> MemoryEstimate:
        with _hide_folders(model):
            return self._estimate(
                model,
                size=request.largest_size,
                references=references,
                pictures=len(request.seeds),
                upsample=request.upsample,
            )

    def _estimate(
        self,
        model: ResolvedModel,
        *,
        size: tuple[int, int],
        references: Sequence[tuple[int, int]],
        pictures: int,
        upsample: bool,
    ) -> MemoryEstimate:
        family = FAMILIES[model.spec.family]
        return family.estimate(
            family.read(model.folder, model.spec.facts),
            model.spec.quantize,
            self._machine,
            size=size,
            references=references,
            pictures=pictures,
            upsample=upsample,
        )


@contextmanager
def _hide_folders(model: ResolvedModel) -> Iterator[None]:
    """Strip local paths from errors."""
    try:
        yield
    except MfluxError as error:
        raise strip_folders(error, [model.folder.parent]) from error


def _read_size(file: Path) -> tuple[int, int] | None:
    """Read a picture's size in pixels. Returns None for a bad file; the engine will report its error."""
    try:
        return read_size(file.read_bytes())
    except (OSError, InvalidImage):
        return None
