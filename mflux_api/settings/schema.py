"""Declaration of every setting: name, type, default, help, environment variable and flag."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, field_validator

from mflux_api.home import MODELS_DIR, OUTPUT_DIR, STYLES_FILE
from mflux_api.settings.types import (
    LARGEST_SIDE,
    LONGEST_DAYS,
    LONGEST_SECONDS,
    BucketName,
    Count,
    Folder,
    HttpUrl,
    NamedValues,
    NameList,
    Origins,
    Region,
    Seconds,
    Secret,
    Section,
    Side,
    option,
)

DIALECTS = ("klein", "flux2-web", "edge", "bfl", "replicate", "openai")
# Dialects whose clients cannot be given a path prefix.
ROOT_DIALECTS = ("klein", "flux2-web", "edge")


class ServerSettings(Section):
    """Where the server listens and how long it waits for clients."""

    host: str = option("0.0.0.0", "Address to listen on.", env="MFLUX_API_HOST", flag="--host")
    port: int = option(
        7861, "Port to listen on; 0 takes any free one.", env="MFLUX_API_PORT", flag="--port", ge=0, le=65535
    )
    cors_origins: Origins = option(("*",), "Origins whose web pages may use the server (CORS); * for all.")
    allowed_hosts: NameList = option(("*",), "Accepted Host headers; * for all.", min_length=1)
    max_body_mb: Count = option(64, "Largest request body, in MB.")
    body_seconds: Seconds = option(30, "Seconds a client may pause while it sends a request body.")
    shutdown_seconds: float = option(
        30, "Seconds the running job gets to finish on shutdown.", ge=0, le=LONGEST_SECONDS
    )
    public_url: str | None = option(None, "URL of the server as clients see it; null to take it from each request.")
    heartbeat_seconds: Seconds = option(15, "Seconds between the comment lines that keep an event stream open.")
    send_seconds: Seconds = option(15, "Seconds after which an event stream whose client reads nothing is closed.")


class SecuritySettings(Section):
    """Authentication, rate limits and what clients may name."""

    api_keys: NamedValues = option(
        {}, "API keys: {alice: key1} here, alice:key1,bob:key2 elsewhere; without keys all are let in.", repr=False
    )
    api_auth: NamedValues = option(
        {},
        "Users and passwords for HTTP Basic, as in SD-WebUI: user:password,user2:password2.",
        flag="--api-auth",
        repr=False,
    )
    token_seconds: Seconds = option(300, "Lifetime of a token for EventSource, in seconds.")
    requests_per_minute: int = option(0, "Requests per minute for each key or IP address; 0 for no limit.", ge=0)
    fetch_hosts: NameList = option((), "Private hosts that clients may use in URLs.")
    fetch_seconds: Seconds = option(30, "Seconds to fetch a picture from a URL.")
    upload_seconds: Seconds = option(86_400, "Lifetime of files that clients upload for later orders, in seconds.")
    upload_gb: float = option(2.0, "Total size of these files, in GB; more are refused.", gt=0)
    link_seconds: Seconds = option(3600, "Lifetime of the picture URLs in replies, in seconds.")
    lora_paths: bool = option(False, "Clients may give LoRA files by path, anywhere on this machine.")


class ModelSettings(Section):
    """The models and their folders."""

    default: str = option(
        "flux2-klein-4b", "Model for requests that name none.", env="MFLUX_DEFAULT_MODEL", flag="--model"
    )
    auto_download: bool = option(True, "Download a known model when a request first uses it.")
    cache_dir: Folder = option(MODELS_DIR, "Folder of the models.", env="MFLUX_MODELS_DIR", flag="--models-dir")
    lora_dir: Folder | None = option(None, "Folder of the LoRA files; null for the folder loras in cache_dir.")
    follow_links: bool = option(True, "Use links in these folders that lead out of them. Clients cannot make links.")

    @property
    def lora_folder(self) -> Path:
        return self.lora_dir or self.cache_dir / "loras"


class EngineSettings(Section):
    """The process that paints the pictures."""

    memory_budget_gb: float | None = option(
        None, "Memory the engine may use; null for three quarters of this machine's.", gt=0
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", "auto, float32, bfloat16 or float16.")
    low_ram: bool = option(False, "Unload the text encoder before denoising.")
    silence_seconds: Seconds = option(600, "Seconds without a report from a working engine until it is killed.")
    idle_seconds: float = option(
        0, "Seconds without work until the engine frees its memory; 0 for never.", ge=0, le=LONGEST_SECONDS
    )
    preload: bool = option(False, "Load the default model at start.")
    background: bool = option(
        True, "Linux only: run the engine at idle CPU priority, behind the server and all other programs."
    )


class GenerationSettings(Section):
    """Defaults and limits of requests."""

    default_steps: Count = option(4, "Denoising steps of distilled models; base models have their own default.")
    default_width: Side = option(512, "Width in pixels, a multiple of 16, at least 64.")
    default_height: Side = option(512, "Height in pixels, a multiple of 16, at least 64.")
    max_batch_size: Count = option(4, "Most pictures per request.")
    max_side: int = option(2048, "Longest side of a picture, in pixels.", ge=64, le=LARGEST_SIDE)
    max_steps: Count = option(150, "Most denoising steps.")
    max_prompt_chars: Count = option(10000, "Longest prompt, in characters.")
    max_references: int = option(8, "Most reference pictures per request.", ge=0)
    max_image_megapixels: Count = option(32, "Largest picture a client may send, in megapixels.")
    styles_file: Folder = option(
        STYLES_FILE, "CSV file of SD-WebUI styles, with the columns name, prompt, negative_prompt."
    )
    output_dir: Folder = option(
        OUTPUT_DIR, "Folder of the pictures and jobs.", env="MFLUX_OUTPUT_DIR", flag="--output-dir"
    )


class QueueSettings(Section):
    """The job queue, and how long finished jobs are kept."""

    limit: Count = option(100, "Most waiting jobs.")
    tries: Count = option(2, "Attempts to run a job before it is marked as failed.")
    keep_days: float = option(0, "Days to keep finished jobs with their pictures; 0 keeps all.", ge=0, le=LONGEST_DAYS)
    keep_gb: float = option(0.0, "Size of the finished jobs to keep, in GB; the oldest are deleted. 0 keeps all.", ge=0)


class StorageSettings(Section):
    """Storage for pictures that clients get as URLs. All pictures are kept in generation.output_dir as well."""

    kind: Literal["local", "s3"] = option("local", "local: served by this server. s3: in a bucket, as presigned URLs.")
    bucket: BucketName | None = option(None, "Name of the bucket.")
    endpoint_url: HttpUrl | None = option(None, "URL of an S3-compatible store; null for Amazon S3.")
    public_url: HttpUrl | None = option(None, "URL of the store as clients see it; null for endpoint_url.")
    region: Region | None = option(None, "Region of the bucket; null for AWS_REGION or us-east-1.")
    prefix: str | None = option(None, "Folder in the bucket; null for none.")
    access_key: Secret | None = option(
        None, "Access key; null for AWS_ACCESS_KEY_ID or the machine's role.", repr=False
    )
    secret_key: Secret | None = option(
        None, "Secret key; null for AWS_SECRET_ACCESS_KEY or the machine's role.", repr=False
    )
    path_style: bool = option(True, "Put the bucket's name into the URL's path; false: into its host name.")
    seconds: Seconds = option(60, "Seconds to upload a picture, retries included.")


class DialectSettings(Section):
    """Compatible APIs (dialects). /api/v1 and /sdapi/v1 are always served."""

    enabled: NameList = option(DIALECTS, "Dialects to serve: " + ", ".join(DIALECTS) + ".")
    root: Literal["klein", "flux2-web", "edge"] | None = option(
        None, "Dialect served at / as well: klein, flux2-web or edge; null for none.", flag="--root-dialect"
    )
    ports: NamedValues = option(
        {}, "Extra ports, each for one dialect: {klein: 8000} here, klein:8000,edge:8787 elsewhere."
    )
    klein_model: str | None = option(None, "Model for /klein; null for the default model.")
    edge_model: str | None = option(None, "Model for /edge; null for the default model.")
    edge_requests_per_minute: int = option(
        720, "Requests per minute to /edge for each key or IP address; 0 for no limit.", ge=0
    )
    million_tiles_usd: float = option(53.0, "Price of a million 512x512 tiles in US dollars, reported by /edge.", ge=0)
    million_steps_usd: float = option(110.0, "Price of a million steps in US dollars, reported by /edge.", ge=0)
    thb_per_usd: float = option(35.0, "Exchange rate used by /edge: baht per US dollar.", ge=0)
    kwh_usd: float | None = option(
        None, "Price of a kilowatt-hour in US dollars; /edge then reports electricity costs.", ge=0
    )
    watts: float = option(60.0, "Power the machine draws while painting, in watts; used with kwh_usd.", ge=0)

    @field_validator("enabled")
    @classmethod
    def _check_dialects(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(names) - set(DIALECTS):
            raise ValueError(f"unknown dialect {', '.join(sorted(unknown))}; the dialects are {', '.join(DIALECTS)}")
        return names

    @property
    def prefixes_by_port(self) -> dict[int, str]:
        """Map each port to its dialect's path prefix. Raises ValueError for an invalid port."""
        return {int(port): f"/{name}" for name, port in self.ports.items()}

    @field_validator("ports")
    @classmethod
    def _check_ports(cls, ports: Mapping[str, str]) -> Mapping[str, str]:
        for name, port in ports.items():
            if name not in ROOT_DIALECTS or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError(f"{name}:{port} is not a dialect with a port, such as klein:8000 or edge:8787")
        return ports


class LoggingSettings(Section):
    """The log."""

    level: Literal["debug", "info", "warning", "error"] = option(
        "info", "Lowest level to log: debug, info, warning or error.", flag="--log-level"
    )
    format: Literal["text", "json"] = option("text", "text or json.")
    prompts: bool = option(False, "Write prompts to the log.")


class Settings(Section):
    """All settings."""

    server: ServerSettings = ServerSettings()
    security: SecuritySettings = SecuritySettings()
    models: ModelSettings = ModelSettings()
    engine: EngineSettings = EngineSettings()
    generation: GenerationSettings = GenerationSettings()
    queue: QueueSettings = QueueSettings()
    storage: StorageSettings = StorageSettings()
    dialects: DialectSettings = DialectSettings()
    logging: LoggingSettings = LoggingSettings()


@dataclass(frozen=True)
class Option:
    """A declared setting: dotted key, default, help, environment variable and flag (empty if it has none)."""

    key: str
    default: object
    help: str
    env: str
    flag: str
    secret: bool

    @property
    def origin(self) -> str:
        """Origin of a value that was set on the command line."""
        return f"command line {self.flag or f'--set {self.key}'}"


@functools.cache
def options() -> dict[str, Option]:
    """Return every setting by its dotted key, in the order of config.yaml.example."""
    return {option.key: option for section, values in Settings() for option in iter_options(section, values)}


def iter_options(section: str, values: BaseModel) -> Iterator[Option]:
    """Yield the settings of one section, in order."""
    for name, field in type(values).model_fields.items():
        extra = cast(dict[str, str], field.json_schema_extra)
        env = extra["env"] or default_env(f"{section}.{name}")
        yield Option(
            f"{section}.{name}", getattr(values, name), field.description or "", env, extra["flag"], not field.repr
        )


def default_env(key: str) -> str:
    """Return the environment variable of a setting that declares none."""
    return f"MFLUX_{key.replace('.', '_').upper()}"
