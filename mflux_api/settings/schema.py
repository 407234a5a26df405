"""Every option once: name, type, default, help, environment variable."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from pydantic import BaseModel, field_validator

from mflux_api.settings.types import (
    LARGEST_SIDE,
    LONGEST_DAYS,
    LONGEST_SECONDS,
    Address,
    BucketName,
    Count,
    Folder,
    Keys,
    Names,
    Region,
    Secret,
    Section,
    Side,
    Wait,
    option,
)

DIALECTS = ("klein", "flux2-web", "edge", "bfl", "replicate", "openai")
# Those whose clients know no path before theirs.
ROOTS = ("klein", "flux2-web", "edge")


class Server(Section):
    """Where the server listens and how long it waits for clients."""

    host: str = option("0.0.0.0", "Address to listen on.", env="MFLUX_API_HOST", flag="--host")
    port: int = option(
        7861, "Port to listen on; 0 takes any free one.", env="MFLUX_API_PORT", flag="--port", ge=0, le=65535
    )
    cors_origins: Names = option(("*",), "Origins whose web pages may use the server; * for all.")
    allowed_hosts: Names = option(("*",), "Host headers that are answered; * for all.", min_length=1)
    max_body_mb: Count = option(64, "Largest request body, in MB.")
    body_seconds: Wait = option(30, "Time a client may take to send a body.")
    shutdown_seconds: float = option(30, "Time the running job gets to finish on shutdown.", ge=0, le=LONGEST_SECONDS)
    public_url: str | None = option(None, "Its address as clients see it; null for the one that each of them used.")
    heartbeat_seconds: Wait = option(15, "Time between the comment lines that keep a stream of events open.")
    send_seconds: Wait = option(15, "A reader of events that takes nothing for so long is dropped.")


class Security(Section):
    """Who may use the server, and how much."""

    api_keys: Keys = option(
        {}, "API keys by name, here {alice: key1}, elsewhere alice:key1,bob:key2; none lets everybody in.", repr=False
    )
    api_auth: Keys = option(
        {},
        "Users and passwords for HTTP Basic, as SD-WebUI has them: user:password,user2:password2.",
        flag="--api-auth",
        repr=False,
    )
    token_seconds: Wait = option(300, "Life of a token for EventSource.")
    requests_per_minute: int = option(0, "Requests a minute of one key or address; 0 for no limit.", ge=0)
    fetch_hosts: Names = option((), "Hosts whose addresses clients may name although they are not public.")
    fetch_seconds: Wait = option(30, "Time to fetch a picture that a client names by its address.")
    link_seconds: Wait = option(3600, "Life of the addresses of pictures that replies name.")
    lora_paths: bool = option(False, "Clients may name LoRA files by path, anywhere on this machine.")


class Models(Section):
    """Which models, and where their files are."""

    default: str = option(
        "flux2-klein-4b", "Model of requests that name none.", env="MFLUX_DEFAULT_MODEL", flag="--model"
    )
    auto_download: bool = option(True, "Download a known model when it is first asked for.")
    cache_dir: Folder = option(Path("./models"), "Folder of the models.", env="MFLUX_MODELS_DIR", flag="--models-dir")
    lora_dir: Folder | None = option(None, "Folder of the LoRA files; null for loras inside cache_dir.")

    @property
    def loras(self) -> Path:
        """The folder of the LoRA files."""
        return self.lora_dir or self.cache_dir / "loras"


class Engine(Section):
    """The process that paints."""

    memory_budget_gb: float | None = option(None, "Memory it may use; null for three quarters of this machine's.", gt=0)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", "auto, float32, bfloat16 or float16.")
    low_ram: bool = option(False, "Let go of the text encoder before denoising.")
    silence_seconds: Wait = option(600, "It is ended when it reports nothing for so long while working.")
    idle_seconds: float = option(
        0, "It gives its memory back after so long without work; 0 for never.", ge=0, le=LONGEST_SECONDS
    )
    preload: bool = option(False, "Load the default model at start.")
    background: bool = option(
        True, "Linux only: it leaves the CPU to every other program that wants it, the server first."
    )


class Generation(Section):
    """What a request gets by default and may ask for at most."""

    default_steps: Count = option(4, "Denoising steps of distilled models; base models have their own.")
    default_width: Side = option(512, "Width in pixels, a multiple of 16 from 64 up.")
    default_height: Side = option(512, "Height in pixels, a multiple of 16 from 64 up.")
    max_batch_size: Count = option(4, "Most pictures of one request.")
    max_side: int = option(2048, "Longest side of a picture, in pixels.", ge=64, le=LARGEST_SIDE)
    max_steps: Count = option(100, "Most denoising steps.")
    max_prompt_chars: Count = option(10000, "Longest prompt, in characters.")
    max_references: int = option(8, "Most reference pictures of one request.", ge=0)
    max_image_megapixels: Count = option(32, "Largest picture that may be sent.")
    styles_file: Folder = option(Path("./styles.csv"), "SD-WebUI's styles: name, prompt, negative_prompt.")
    output_dir: Folder = option(
        Path("./output"), "Folder of the pictures and jobs.", env="MFLUX_OUTPUT_DIR", flag="--output-dir"
    )


class Queue(Section):
    """The jobs: how many wait, and how long finished ones are kept."""

    limit: Count = option(100, "Most waiting jobs.")
    tries: Count = option(2, "Times a job is started before it counts as failed.")
    keep_days: float = option(30, "Days that finished jobs are kept; 0 for ever.", ge=0, le=LONGEST_DAYS)
    keep_gb: float = option(20.0, "Size that finished jobs are kept up to; 0 for no limit.", ge=0)


class Storage(Section):
    """Where pictures are put whose addresses clients are given. They are kept in generation.output_dir as well."""

    kind: Literal["local", "s3"] = option("local", "local: on this server. s3: in a bucket, at presigned addresses.")
    bucket: BucketName | None = option(None, "The bucket.")
    endpoint_url: Address | None = option(None, "Address of an S3-compatible store; null for Amazon's.")
    public_url: Address | None = option(None, "That address as clients see it; null for the same.")
    region: Region | None = option(None, "Its region; null for AWS_REGION or us-east-1.")
    prefix: str | None = option(None, "Folder in the bucket; null for none.")
    access_key: Secret | None = option(
        None, "Access key; null for AWS_ACCESS_KEY_ID or the machine's role.", repr=False
    )
    secret_key: Secret | None = option(
        None, "Secret key; null for AWS_SECRET_ACCESS_KEY or the machine's role.", repr=False
    )
    path_style: bool = option(True, "The bucket is in the path of addresses; false: in the host's name.")
    seconds: Wait = option(60, "Time to upload a picture, tries included.")


class Dialects(Section):
    """Which foreign APIs are answered, where, and what they are told. /api/v1 and /sdapi/v1 always are."""

    enabled: Names = option(DIALECTS, "Those that are answered: " + ", ".join(DIALECTS) + ".")
    root: Literal["klein", "flux2-web", "edge"] | None = option(
        None, "klein, flux2-web or edge: answered at / as well; null for none.", flag="--root-dialect"
    )
    ports: Keys = option({}, "Ports of their own, here {klein: 8000}, elsewhere klein:8000,edge:8787.")
    klein_model: str | None = option(None, "Model that paints under /klein; null for the default one.")
    edge_model: str | None = option(None, "Model that paints under /edge; null for the default one.")
    edge_requests_per_minute: int = option(720, "Requests a minute under /edge; 0 for no limit.", ge=0)
    million_tiles_usd: float = option(53.0, "Dollars of a million tiles of 512x512, as /edge tells.", ge=0)
    million_steps_usd: float = option(110.0, "Dollars of a million steps, as /edge tells.", ge=0)
    thb_per_usd: float = option(35.0, "Baht of a dollar.", ge=0)
    kwh_usd: float | None = option(None, "Dollars of a kilowatt-hour: /edge tells what the electricity cost.", ge=0)
    watts: float = option(60.0, "What the machine takes while it paints.", ge=0)

    @field_validator("enabled")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(names) - set(DIALECTS):
            raise ValueError(f"there is no dialect {', '.join(sorted(unknown))}; there are {', '.join(DIALECTS)}")
        return names

    @property
    def own_ports(self) -> dict[int, str]:
        """Ports to prefixes. Raises ValueError for what is no port."""
        return {int(port): f"/{name}" for name, port in self.ports.items()}

    @field_validator("ports")
    @classmethod
    def _are_ports(cls, ports: Mapping[str, str]) -> Mapping[str, str]:
        for name, port in ports.items():
            if name not in ROOTS or not port.isdecimal() or not 0 < int(port) < 65536:
                raise ValueError(f"{name}:{port} is no dialect with a port; klein:8000,edge:8787 are")
        return ports


class Logging(Section):
    """What the log says, and how."""

    level: Literal["debug", "info", "warning", "error"] = option(
        "info", "debug, info, warning or error.", flag="--log-level"
    )
    format: Literal["text", "json"] = option("text", "text or json.")
    prompts: bool = option(False, "Write prompts to the log.")


class Settings(Section):
    """Everything that can be set."""

    server: Server = Server()
    security: Security = Security()
    models: Models = Models()
    engine: Engine = Engine()
    generation: Generation = Generation()
    queue: Queue = Queue()
    storage: Storage = Storage()
    dialects: Dialects = Dialects()
    logging: Logging = Logging()


@dataclass(frozen=True)
class Option:
    """One declared setting: its dotted key, default and help, the variable and, if it has one, the flag that set it."""

    key: str
    default: object
    help: str
    env: str
    flag: str
    secret: bool

    @property
    def origin(self) -> str:
        """Where a value from the command line came from."""
        return f"command line {self.flag or f'--set {self.key}'}"


@functools.cache
def options() -> dict[str, Option]:
    """Every setting by its dotted key, in the order of the file."""
    return {option.key: option for section, values in Settings() for option in options_of(section, values)}


def options_of(section: str, values: BaseModel) -> Iterator[Option]:
    """The settings of one section, in order."""
    for name, field in type(values).model_fields.items():
        extra = cast(dict[str, str], field.json_schema_extra)
        env = extra["env"] or usual_env(f"{section}.{name}")
        yield Option(
            f"{section}.{name}", getattr(values, name), field.description or "", env, extra["flag"], not field.repr
        )


def usual_env(key: str) -> str:
    """The environment variable of a setting that has no documented one."""
    return f"MFLUX_{key.replace('.', '_').upper()}"
