"""Types of setting values, and the base class of the sections."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

DEFAULT_PORTS = {"http": ":80", "https": ":443"}
NULLS = ("", "~", "null")
# Upper bounds that keep timers from overflowing: 115 days and 100 years.
LONGEST_SECONDS, LONGEST_DAYS = 10_000_000, 36_500
LARGEST_SIDE = 16_384
PLAIN_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9a-f:]+\])(:\d{1,5})?")


def _null_to_none(value: object) -> object:
    return None if value in NULLS else value


def _split_list(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return () if value is None else value


def _parse_pairs(value: object) -> object:
    """Parse NAME:KEY,NAME:KEY into a mapping. With a repeated name, return the text, which validation rejects."""
    if not isinstance(value, str):
        return {} if value is None else value
    parts = [part.partition(":") for part in value.split(",") if part.strip()]
    found = {name.strip(): key.strip() for name, _, key in parts}
    return found if len(found) == len(parts) else value


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("input should not be in the home of an unknown user") from None


def _check_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not PLAIN_HOST.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise ValueError("an address should begin with http:// or https:// and hold neither key nor query")
    return text.rstrip("/")


def _normalise_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """Write origins as browsers send them. Raises ValueError for a host that is none."""
    return tuple(map(_normalise_origin, origins))


def _normalise_origin(text: str) -> str:
    """Lower case, and without a path or the scheme's own port. Texts without a scheme are only lowered."""
    scheme, found, rest = text.lower().partition("://")
    if not found:
        return scheme
    host = rest.partition("/")[0].removesuffix(DEFAULT_PORTS.get(scheme, ""))
    try:
        return f"{scheme}://{host if host.isascii() else host.encode('idna').decode()}"
    except UnicodeError:
        raise ValueError("an origin should be a scheme and a host, as in https://pages.example") from None


def option(default: Any, text: str, *, env: str = "", flag: str = "", **limits: Any) -> Any:
    return Field(default, description=text, json_schema_extra={"env": env, "flag": flag}, **limits)


Text = Annotated[str, Field(min_length=1)]
# Characters that are valid in an HTTP header.
Secret = Annotated[str, Field(pattern=r"^[!-~]+$"), BeforeValidator(_null_to_none)]
HttpUrl = Annotated[str, AfterValidator(_check_url)]
BucketName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$")]
Region = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")]
NameList = Annotated[tuple[Text, ...], BeforeValidator(_split_list)]
Origins = Annotated[NameList, AfterValidator(_normalise_origins)]
NamedValues = Annotated[Mapping[Text, Secret], BeforeValidator(_parse_pairs)]
Folder = Annotated[Path, AfterValidator(_expand_home)]
Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS)]
Side = Annotated[int, Field(ge=64, le=LARGEST_SIDE, multiple_of=16)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of the sections: frozen, and rejects undeclared settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _read_null(cls, value: object) -> object:
        return _null_to_none(value)
