"""Build the services from the settings. Services get plain values and do not read the settings."""

import asyncio
import threading
from functools import partial
from pathlib import Path

from mflux_api.app.lifecycle import GIGABYTE, Services
from mflux_api.errors import InvalidSetting, PictureNotFound
from mflux_api.events import EventBus
from mflux_api.ipc.messages import EngineSetup, LoadCommand, UnloadCommand
from mflux_api.jobs.order import Defaults, Limits
from mflux_api.jobs.queue import ClientQueue
from mflux_api.jobs.service import JobService
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from mflux_api.metrics import Metrics
from mflux_api.models.download_queue import DownloadProgress, DownloadQueue, OnProgress
from mflux_api.models.inventory import ModelInventory, ModelLoader
from mflux_api.models.loras import LoraFolder
from mflux_api.models.registry import ModelSpec
from mflux_api.net.fetching import Fetcher
from mflux_api.net.s3 import Bucket, BucketConfig
from mflux_api.settings import Settings
from mflux_api.supervisor import Supervisor
from mflux_api.web.auth import ApiKeys
from mflux_api.web.body import BodyReader
from mflux_api.web.context import HttpContext
from mflux_api.web.pictures import MEGAPIXEL, PictureReader
from mflux_api.web.signed_urls import SignedUrls
from mflux_api.web.sse import EventStreamer
from mflux_api.web.uploaded_files import UploadedFiles
from mflux_api.worker.admission import Admission
from mflux_api.worker.dispatcher import Dispatcher
from mflux_api.worker.engine_process import EngineProcess

GIB = 1024**3
MEBIBYTE = 1024**2
EMBEDDINGS = 256 * MEBIBYTE
LINKS_KEY, UPLOADS = "links.key", "uploads"
# AWS signatures (SigV4) are valid for at most a week. In seconds.
LONGEST_LINK = 7 * 86_400


def make_services(settings: Settings) -> Services:
    output = settings.generation.output_dir
    models_dir = settings.models.cache_dir
    events, metrics = EventBus(), Metrics()
    engine = EngineProcess(_engine_setup(settings), settings.engine.silence_seconds)
    limits = settings.queue
    queue = SQLiteQueue(output, events, limit=limits.limit, tries=limits.tries)
    admission = Admission(engine, models_dir, output.resolve(), follow_links=settings.models.follow_links)
    downloads = DownloadQueue(partial(_download, metrics, models_dir), events)
    service = _make_service(settings, queue, downloads, engine, admission)
    dispatcher = Dispatcher(
        queue,
        engine,
        metrics,
        admit_job=admission.admit_job,
        find_admitted=admission.find_admitted,
        inputs_dir=output.resolve(),
        idle_seconds=settings.engine.idle_seconds,
        log_prompts=settings.logging.prompts,
    )
    metrics.set_queue_depth_source(queue.count_waiting)
    supervisor = Supervisor(
        lambda task: metrics.set_task(task.name, restarting=task.state == "restarting", restarts=task.restarts)
    )
    return Services(settings, queue, engine, service, dispatcher, metrics, supervisor)


def _engine_setup(settings: Settings) -> EngineSetup:
    budget = settings.engine.memory_budget_gb
    return EngineSetup(
        budget=None if budget is None else int(budget * GIB),
        precision=settings.engine.precision,
        embedding_cache=EMBEDDINGS,
        max_image_pixels=int(settings.generation.max_image_megapixels * MEGAPIXEL),
        low_priority=settings.engine.background,
    )


def _make_service(
    settings: Settings, queue: ClientQueue, downloads: DownloadQueue, engine: EngineProcess, admission: Admission
) -> JobService:
    models_dir, low_ram = settings.models.cache_dir, settings.engine.low_ram
    door = ModelLoader(
        load=lambda model: engine.run_command(LoadCommand(model, low_ram)),
        unload=lambda model: engine.run_command(UnloadCommand(model.spec.name)),
        loaded_names=lambda: engine.memory.loaded,
        estimate_memory=admission.estimate_memory,
    )
    models = ModelInventory(models_dir, settings.models.default, door, follow_links=settings.models.follow_links)
    return JobService(
        queue,
        models,
        downloads,
        defaults=_order_defaults(settings),
        loras=LoraFolder(
            folder=settings.models.lora_folder,
            anywhere=settings.security.lora_paths,
            follow_links=settings.models.follow_links,
        ),
        admit=admission.check_request,
        auto_download=settings.models.auto_download,
        low_ram=low_ram,
    )


def _download(metrics: Metrics, models_dir: Path, spec: ModelSpec, tell: OnProgress, stop: threading.Event) -> Path:
    """Download a model and count its bytes in the metrics."""
    # Imported here: the hub client takes 25 MiB of memory, and most servers never download.
    from mflux_api.models.download import download

    before = 0

    def report_progress(progress: DownloadProgress) -> None:
        nonlocal before
        metrics.count_downloaded_bytes(max(0, progress.done_bytes - before))
        before = progress.done_bytes
        tell(progress)

    return download(spec, models_dir, report_progress, stop)


def _order_defaults(settings: Settings) -> Defaults:
    chosen = settings.generation
    limits = Limits(
        side=chosen.max_side,
        steps=chosen.max_steps,
        pictures=chosen.max_batch_size,
        prompt=chosen.max_prompt_chars,
        references=chosen.max_references,
    )
    return Defaults(steps=chosen.default_steps, width=chosen.default_width, height=chosen.default_height, limits=limits)


def make_context(settings: Settings, queue: ClientQueue) -> HttpContext:
    async def read_painted(job_id: str, index: int) -> bytes:
        pictures = (await queue.get(job_id)).present
        if index not in pictures:
            raise PictureNotFound("There is no such picture.")
        return await asyncio.to_thread(queue.read_picture, pictures[index].file)

    server, security = settings.server, settings.security
    return HttpContext(
        body=BodyReader(server.max_body_mb * MEBIBYTE, server.body_seconds),
        pictures=PictureReader(int(settings.generation.max_image_megapixels * MEGAPIXEL)),
        streamer=EventStreamer(server.heartbeat_seconds, server.send_seconds),
        signed_urls=SignedUrls(settings.generation.output_dir / LINKS_KEY, server.public_url, security.link_seconds),
        uploads=UploadedFiles(
            settings.generation.output_dir / UPLOADS, security.upload_seconds, int(security.upload_gb * GIGABYTE)
        ),
        read_painted=read_painted,
        fetcher=Fetcher(security.fetch_hosts, security.fetch_seconds),
        keys=ApiKeys(security.api_keys, security.token_seconds, security.api_auth),
        bucket=make_bucket(settings),
    )


def make_bucket(settings: Settings) -> Bucket | None:
    """Return the bucket that stores pictures, or None if this server serves them itself. Raises InvalidSetting."""
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
    place = BucketConfig(
        bucket=chosen.bucket,
        endpoint=chosen.endpoint_url,
        public=chosen.public_url,
        region=chosen.region,
        prefix=chosen.prefix,
        access_key=chosen.access_key,
        secret_key=chosen.secret_key,
        path_style=chosen.path_style,
        timeout=chosen.seconds,
        link_seconds=life,
    )
    return Bucket(place)
