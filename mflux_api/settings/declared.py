"""Every option once: name, type, default, help, environment variable."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

NULLS = ("", "~", "null")
# Longer than anybody waits, shorter than what timers overflow at.
LONGEST_SECONDS, LONGEST_DAYS = 10_000_000, 36_500
LARGEST_SIDE = 16_384


def _unless_null(value: object) -> object:
    return None if value in NULLS else value


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return () if value is None else value


def _pairs(value: object) -> object:
    """NAME:KEY,NAME:KEY as a mapping; a name given twice stays text, which is refused."""
    if not isinstance(value, str):
        return {} if value is None else value
    parts = [part.partition(":") for part in value.split(",") if part.strip()]
    found = {name.strip(): key.strip() for name, _, key in parts}
    return found if len(found) == len(parts) else value


def _expand(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("input should not be in the home of an unknown user") from None


def _option(default: Any, text: str, *, env: str = "", flag: str = "", **limits: Any) -> Any:
    return Field(default, description=text, json_schema_extra={"env": env, "flag": flag}, **limits)


Text = Annotated[str, Field(min_length=1)]
# What an HTTP header can carry.
Secret = Annotated[str, Field(pattern=r"^[!-~]+$"), BeforeValidator(_unless_null)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_split)]
Keys = Annotated[Mapping[Text, Secret], BeforeValidator(_pairs)]
Folder = Annotated[Path, AfterValidator(_expand)]
Wait = Annotated[float, Field(gt=0, le=LONGEST_SECONDS)]
Side = Annotated[int, Field(ge=64, le=LARGEST_SIDE, multiple_of=16)]
Count = Annotated[int, Field(ge=1)]


DIALECTS = ("klein", "flux2-web", "edge", "bfl", "replicate", "openai")
# Those whose clients know no path before theirs.
ROOTS = ("klein", "flux2-web", "edge")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _null(cls, value: object) -> object:
        return _unless_null(value)


class Server(_Section):
    """Where the server listens and how long it waits for clients."""

    host: str = _option("0.0.0.0", "Address to listen on.", env="MFLUX_API_HOST", flag="--host")
    port: int = _option(
        7861, "Port to listen on; 0 takes any free one.", env="MFLUX_API_PORT", flag="--port", ge=0, le=65535
    )
    cors_origins: Names = _option(("*",), "Origins whose web pages may use the server; * for all.")
    allowed_hosts: Names = _option(("*",), "Host headers that are answered; * for all.", min_length=1)
    max_body_mb: Count = _option(64, "Largest request body, in MB.")
    body_seconds: Wait = _option(30, "Time a client may take to send a body.")
    shutdown_seconds: float = _option(30, "Time the running job gets to finish on shutdown.", ge=0, le=LONGEST_SECONDS)
    public_url: str | None = _option(None, "Its address as clients see it; null for the one that each of them used.")
    heartbeat_seconds: Wait = _option(15, "Time between the comment lines that keep a stream of events open.")
    send_seconds: Wait = _option(15, "A reader of events that takes nothing for so long is dropped.")


class Security(_Section):
    """Who may use the server, and how much."""

    api_keys: Keys = _option(
        {}, "API keys by name, here {alice: key1}, elsewhere alice:key1,bob:key2; none lets everybody in.", repr=False
    )
    api_auth: Keys = _option(
        {},
        "Users and passwords for HTTP Basic, as SD-WebUI has them: user:password,user2:password2.",
        flag="--api-auth",
        repr=False,
    )
    token_seconds: Wait = _option(300, "Life of a token for EventSource.")
    requests_per_minute: int = _option(0, "Requests a minute of one key or address; 0 for no limit.", ge=0)
    fetch_hosts: Names = _option((), "Hosts whose addresses clients may name although they are not public.")
    fetch_seconds: Wait = _option(30, "Time to fetch a picture that a client names by its address.")
    link_seconds: Wait = _option(3600, "Life of the addresses of pictures that replies name.")
    lora_paths: bool = _option(False, "Clients may name LoRA files by path, anywhere on this machine.")


class Models(_Section):
    """Which models, and where their files are."""

    default: str = _option(
        "flux2-klein-4b", "Model of requests that name none.", env="MFLUX_DEFAULT_MODEL", flag="--model"
    )
    auto_download: bool = _option(True, "Download a known model when it is first asked for.")
    cache_dir: Folder = _option(Path("./models"), "Folder of the models.", env="MFLUX_MODELS_DIR", flag="--models-dir")
    lora_dir: Folder | None = _option(None, "Folder of the LoRA files; null for loras inside cache_dir.")

    @property
    def loras(self) -> Path:
        """The folder of the LoRA files."""
        return self.lora_dir or self.cache_dir / "loras"


class Engine(_Section):
    """The process that paints."""

    memory_budget_gb: float | None = _option(
        None, "Memory it may use; null for three quarters of this machine's.", gt=0
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = _option(
        "auto", "auto, float32, bfloat16 or float16."
    )
    low_ram: bool = _option(False, "Let go of the text encoder before denoising.")
    silence_seconds: Wait = _option(600, "It is ended when it reports nothing for so long while working.")
    idle_seconds: float = _option(
        0, "It gives its memory back after so long without work; 0 for never.", ge=0, le=LONGEST_SECONDS
    )
    preload: bool = _option(False, "Load the default model at start.")


class Generation(_Section):
    """What a request gets by default and may ask for at most."""

    default_steps: Count = _option(4, "Denoising steps of distilled models; base models have their own.")
    default_width: Side = _option(512, "Width in pixels, a multiple of 16 from 64 up.")
    default_height: Side = _option(512, "Height in pixels, a multiple of 16 from 64 up.")
    max_batch_size: Count = _option(4, "Most pictures of one request.")
    max_side: int = _option(2048, "Longest side of a picture, in pixels.", ge=64, le=LARGEST_SIDE)
    max_steps: Count = _option(100, "Most denoising steps.")
    max_prompt_chars: Count = _option(10000, "Longest prompt, in characters.")
    max_references: int = _option(8, "Most reference pictures of one request.", ge=0)
    max_image_megapixels: Count = _option(32, "Largest picture that may be sent.")
    styles_file: Folder = _option(Path("./styles.csv"), "SD-WebUI's styles: name, prompt, negative_prompt.")
    output_dir: Folder = _option(
        Path("./output"), "Folder of the pictures and jobs.", env="MFLUX_OUTPUT_DIR", flag="--output-dir"
    )


class Queue(_Section):
    """The jobs: how many wait, and how long finished ones are kept."""

    limit: Count = _option(100, "Most waiting jobs.")
    tries: Count = _option(2, "Times a job is started before it counts as failed.")
    keep_days: float = _option(30, "Days that finished jobs are kept; 0 for ever.", ge=0, le=LONGEST_DAYS)
    keep_gb: float = _option(20.0, "Size that finished jobs are kept up to; 0 for no limit.", ge=0)


class Dialects(_Section):
    """Which foreign APIs are answered, where, and what they are told. /api/v1 and /sdapi/v1 always are."""

    enabled: Names = _option(DIALECTS, "Those that are answered: " + ", ".join(DIALECTS) + ".")
    root: Literal["klein", "flux2-web", "edge"] | None = _option(
        None, "klein, flux2-web or edge: answered at / as well; null for none.", flag="--root-dialect"
    )
    ports: Keys = _option({}, "Ports of their own, here {klein: 8000}, elsewhere klein:8000,edge:8787.")
    klein_model: str | None = _option(None, "Model that paints under /klein; null for the default one.")
    edge_model: str | None = _option(None, "Model that paints under /edge; null for the default one.")
    edge_requests_per_minute: int = _option(720, "Requests a minute under /edge; 0 for no limit.", ge=0)
    million_tiles_usd: float = _option(53.0, "Dollars of a million tiles of 512x512, as /edge tells.", ge=0)
    million_steps_usd: float = _option(110.0, "Dollars of a million steps, as /edge tells.", ge=0)
    thb_per_usd: float = _option(35.0, "Baht of a dollar.", ge=0)
    kwh_usd: float | None = _option(None, "Dollars of a kilowatt-hour: /edge tells what the electricity cost.", ge=0)
    watts: float = _option(60.0, "What the machine takes while it paints.", ge=0)

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


class Logging(_Section):
    """What the log says, and how."""

    level: Literal["debug", "info", "warning", "error"] = _option(
        "info", "debug, info, warning or error.", flag="--log-level"
    )
    format: Literal["text", "json"] = _option("text", "text or json.")
    prompts: bool = _option(False, "Write prompts to the log.")


class Settings(_Section):
    """Everything that can be set."""

    server: Server = Server()
    security: Security = Security()
    models: Models = Models()
    engine: Engine = Engine()
    generation: Generation = Generation()
    queue: Queue = Queue()
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
