"""Settings to parts: each is handed plain values, none reads settings itself."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from PIL import Image

from mflux_api.app.parts import Parts
from mflux_api.catalogue import downloads as hub
from mflux_api.catalogue.loras import Adapters
from mflux_api.catalogue.models import Located, ModelSpec, known
from mflux_api.dispatcher import Dispatcher
from mflux_api.engine.estimate import Machine, check_upsampling, need
from mflux_api.engine.messages import Load, Setup, Unload
from mflux_api.engine.process import EngineProcess
from mflux_api.engine.seedvr2 import estimate as upscaler
from mflux_api.errors import InvalidSetting, MfluxError, OutOfMemory, without_folders
from mflux_api.jobs.downloads import Downloads
from mflux_api.jobs.events import Events
from mflux_api.jobs.images import Images
from mflux_api.jobs.job import Job
from mflux_api.jobs.models import EngineDoor, Models
from mflux_api.jobs.order import Defaults, Limits
from mflux_api.jobs.queue import JobQueue
from mflux_api.jobs.store import Store
from mflux_api.jobs.studio import Studio
from mflux_api.metrics import Metrics
from mflux_api.net.bucket import Bucket, Place
from mflux_api.net.fetching import Fetcher
from mflux_api.request import SMALLEST_SIDE, GenerateRequest
from mflux_api.settings import Settings
from mflux_api.web.auth import Keys
from mflux_api.web.body import BodyReader
from mflux_api.web.links import Links
from mflux_api.web.pictures import MEGAPIXEL, PictureReader
from mflux_api.web.sse import Streamer
from mflux_api.web.tools import Tools

GIB = 1024**3
MEBIBYTE = 1024**2
EMBEDDINGS = 256 * MEBIBYTE
DATABASE = "jobs.db"
LINKS_KEY = "links.key"
# Signatures of Amazon's kind are good for a week at most.
LONGEST_LINK = 7 * 86_400
# What computes, until the engine has started and said so.
ASSUMED = Machine(device="metal", width=2) if sys.platform == "darwin" else Machine(device="cpu", width=4)
SMALLEST = (SMALLEST_SIDE, SMALLEST_SIDE)


def make_parts(settings: Settings) -> Parts:
    output = settings.generation.output_dir
    models_dir = settings.models.cache_dir
    events, metrics = Events(), Metrics()
    engine = EngineProcess(_setup(settings), settings.engine.silence_seconds)
    limits = settings.queue
    queue = JobQueue(Store(output / DATABASE), Images(output), events, limit=limits.limit, tries=limits.tries)
    studio = _studio(settings, queue, engine, metrics)
    dispatcher = Dispatcher(
        queue,
        engine,
        metrics,
        locate=lambda name: known(name, models_dir),
        admit=partial(_admit_job, engine, output.resolve()),
        inputs=output.resolve(),
        idle_seconds=settings.engine.idle_seconds,
        log_prompts=settings.logging.prompts,
    )
    metrics.watch_queue(lambda: len(queue.line))
    return Parts(settings, queue, engine, studio, dispatcher, metrics)


def _setup(settings: Settings) -> Setup:
    budget = settings.engine.memory_budget_gb
    return Setup(
        budget=None if budget is None else int(budget * GIB),
        precision=settings.engine.precision,
        embedding_cache=EMBEDDINGS,
        largest_image=int(settings.generation.max_image_megapixels * MEGAPIXEL),
        background=settings.engine.background,
    )


def _studio(settings: Settings, queue: JobQueue, engine: EngineProcess, metrics: Metrics) -> Studio:
    models_dir, low_ram = settings.models.cache_dir, settings.engine.low_ram
    door = EngineDoor(
        load=lambda model: engine.run(Load(model, low_ram)),
        unload=lambda model: engine.run(Unload(model.spec.name)),
        loaded=lambda: engine.memory.loaded,
        weigh=partial(_weigh, engine),
    )
    models = Models(models_dir, settings.models.default, door)
    downloads = Downloads(partial(_fetch, metrics, models_dir), queue.events)
    return Studio(
        queue,
        models,
        downloads,
        defaults=_defaults(settings),
        loras=Adapters(folder=settings.models.loras, anywhere=settings.security.lora_paths),
        admit=partial(_admit, engine),
        auto_download=settings.models.auto_download,
        low_ram=low_ram,
    )


def _fetch(metrics: Metrics, models_dir: Path, spec: ModelSpec, tell: hub.Tell, stop: threading.Event) -> Path:
    """Download a model, its bytes counted."""
    before = 0

    def counted(progress: hub.Progress) -> None:
        nonlocal before
        metrics.downloaded(max(0, progress.done_bytes - before))
        before = progress.done_bytes
        tell(progress)

    return hub.download(spec, models_dir, counted, stop)


def _defaults(settings: Settings) -> Defaults:
    chosen = settings.generation
    limits = Limits(
        side=chosen.max_side,
        steps=chosen.max_steps,
        pictures=chosen.max_batch_size,
        prompt=chosen.max_prompt_chars,
        references=chosen.max_references,
    )
    return Defaults(steps=chosen.default_steps, width=chosen.default_width, height=chosen.default_height, limits=limits)


def _admit(
    engine: EngineProcess,
    model: Located,
    request: GenerateRequest,
    references: Sequence[tuple[int, int]],
    low_ram: bool,
) -> None:
    """Raises OutOfMemory when the machine cannot hold it, ModelUnsupported for a prompt the model cannot upsample.

    Until the engine has started, nothing is known of the machine.
    """
    if request.upsample:
        with _private(model):
            check_upsampling(model.folder)
    if engine.machine is None:
        return
    machine = Machine(device=engine.machine.device, width=engine.machine.width)
    size = request.largest
    bits, count = model.spec.quantize, len(request.seeds)
    with _private(model):
        if model.spec.upscaler:
            wanted = upscaler.need(model.folder, bits, machine, size=size, pictures=count)
        else:
            wanted = need(
                model.folder,
                bits,
                machine,
                size=size,
                references=references,
                pictures=count,
                upsample=request.upsample,
            )
    needed = wanted.peak(low_ram=low_ram)
    if needed > engine.machine.budget:
        raise OutOfMemory(
            "Insufficient memory. Try using a quantized model or low_ram mode",
            suggestion="Use flux2-klein-4b-mlx-4bit or set low_ram=true",
            needed_gb=round(needed / GIB, 2),
            budget_gb=round(engine.machine.budget / GIB, 2),
        )


def _weigh(engine: EngineProcess, model: Located) -> int | None:
    """Bytes a model will hold once loaded; None for a folder that cannot be read."""
    known, bits = engine.machine, model.spec.quantize
    machine = ASSUMED if known is None else Machine(device=known.device, width=known.width)
    try:
        if model.spec.upscaler:
            return upscaler.need(model.folder, bits, machine, size=SMALLEST, pictures=1).weights
        return need(model.folder, bits, machine, size=SMALLEST, references=(), pictures=1).weights
    except (MfluxError, OSError):
        return None


@contextmanager
def _private(model: Located) -> Iterator[None]:
    """Where the model lies is nobody's business but the server's."""
    try:
        yield
    except MfluxError as error:
        raise without_folders(error, [model.folder.parent]) from error


def _admit_job(engine: EngineProcess, inputs: Path, model: Located, job: Job) -> None:
    """Orders come unmeasured while the engine starts or their model is not here, and a restart may change the budget.

    Raises OutOfMemory.
    """
    sizes = [size for file in job.inputs.references if (size := _size(inputs / file))]
    _admit(engine, model, job.request, sizes, job.low_ram)


def _size(file: Path) -> tuple[int, int] | None:
    """Of a picture; None where the engine will say what is wrong with it."""
    try:
        with Image.open(file) as image:
            return image.size
    except (OSError, Image.DecompressionBombError):
        return None


def make_tools(settings: Settings) -> Tools:
    server, security = settings.server, settings.security
    return Tools(
        body=BodyReader(server.max_body_mb * MEBIBYTE, server.body_seconds),
        pictures=PictureReader(int(settings.generation.max_image_megapixels * MEGAPIXEL)),
        streamer=Streamer(server.heartbeat_seconds, server.send_seconds),
        links=Links(settings.generation.output_dir / LINKS_KEY, server.public_url, security.link_seconds),
        fetcher=Fetcher(security.fetch_hosts, security.fetch_seconds),
        keys=Keys(security.api_keys, security.token_seconds, security.api_auth),
        bucket=make_bucket(settings),
    )


def make_bucket(settings: Settings) -> Bucket | None:
    """None where pictures are handed out from this server. Raises InvalidSetting."""
    chosen, life = settings.storage, settings.security.link_seconds
    if chosen.kind == "local":
        return None
    if not chosen.bucket:
        raise InvalidSetting("storage.kind: s3 needs storage.bucket.", keys=["storage.bucket"])
    if (chosen.access_key is None) != (chosen.secret_key is None):
        raise InvalidSetting("storage.access_key and storage.secret_key belong together.", keys=["storage.access_key"])
    if life > LONGEST_LINK:
        message = f"security.link_seconds: at most {LONGEST_LINK} with storage.kind: s3, not {life:g}."
        raise InvalidSetting(message, keys=["security.link_seconds"])
    place = Place(
        bucket=chosen.bucket,
        endpoint=chosen.endpoint_url,
        public=chosen.public_url,
        region=chosen.region,
        prefix=chosen.prefix,
        access_key=chosen.access_key,
        secret_key=chosen.secret_key,
        path_style=chosen.path_style,
        seconds=chosen.seconds,
        link_seconds=life,
    )
    return Bucket(place)
