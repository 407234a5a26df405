"""Load settings. Precedence: command line, environment, config.yaml, default."""

import difflib
import json
import re
import reprlib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from mflux_api.errors import InvalidSetting
from mflux_api.home import CONFIG_FILE
from mflux_api.settings.schema import Option, Settings, default_env, iter_options, options
from mflux_api.settings.types import NULLS
from mflux_api.settings.yaml_file import parse_yaml

HIDDEN = "***"
# Parts of pydantic's messages that do not describe the expected value.
NOISE = re.compile(r"^Value error, |, unable.*| after validation.*| for <class.*")


class GivenValue(NamedTuple):
    """A value that was set explicitly, and its origin."""

    value: object
    origin: str


@dataclass(frozen=True)
class LoadedSettings:
    """The settings, and the origin of each by its dotted key."""

    settings: Settings
    origins: dict[str, str]


def load(arguments: Mapping[str, str], environ: Mapping[str, str], file: Path | None, *, home: Path) -> LoadedSettings:
    """Load the effective settings.

    `arguments` maps dotted keys to values. With `file` None, config.yaml in the home is read if it exists. Relative
    paths of the file and of the defaults count from the home, others from the working directory. Raises InvalidSetting,
    which names the key, the expected value and the origin.
    """
    typed = _read_environment(environ) | _read_arguments(arguments)
    given = _read_file(file or home / CONFIG_FILE, required=file is not None) | typed
    settings = _place_in_home(_validate(given), home, skip=typed.keys())
    origins = {key: given[key].origin if key in given else "default" for key in options()}
    return LoadedSettings(settings, origins)


def describe(loaded: LoadedSettings) -> Iterator[str]:
    """Yield one line per setting: key, value, origin. Secrets are masked."""
    for key, option in options().items():
        yield f"{key} = {_format_value(_get_value(loaded.settings, key), option)} ({loaded.origins[key]})"


def render_example() -> str:
    """Return the text of config.yaml.example."""
    lines = [
        "# Every setting with its default. Copy this file to config.yaml and keep the lines you change.",
        "# The command line overrides environment variables (in parentheses), which override this file.",
        "# Relative paths count from the home: ~/.mflux-api, or in a checkout the folder where the server starts.",
    ]
    for section, values in Settings():
        lines += ["", f"# {type(values).__doc__}", f"{section}:"]
        for option in iter_options(section, values):
            name = option.key.partition(".")[2]
            lines += [f"  # {option.help} ({option.env})", f"  {name}: {_format_value(option.default, option)}"]
    return "\n".join(lines) + "\n"


def _get_value(settings: Settings, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(settings, section), name)


def _format_value(value: object, option: Option) -> str:
    """Format a value as JSON, which is also valid YAML. Secrets are masked."""
    if option.secret and value is not None:
        value = dict.fromkeys(value, HIDDEN) if isinstance(value, Mapping) else HIDDEN
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, default=str)


# Sources


def _read_arguments(arguments: Mapping[str, str]) -> dict[str, GivenValue]:
    for key in arguments:
        _require_known(key, f"command line --set {key}")
    return {key: GivenValue(value, options()[key].origin) for key, value in arguments.items()}


def _read_environment(environ: Mapping[str, str]) -> dict[str, GivenValue]:
    keys = {option.env: key for key, option in options().items()}
    given = {name: value for name, value in environ.items() if value}
    prefixes = ("MFLUX_API_", *(f"MFLUX_{section.upper()}_" for section in Settings.model_fields))
    # Other variables that start with MFLUX_ are mflux's own, so only these prefixes are checked.
    for name in given:
        if name not in keys and name.startswith(prefixes):
            usual = {default_env(key): env for env, key in keys.items()} | {env: env for env in keys}
            near = [usual[word] for word in difflib.get_close_matches(name, usual, n=1)]
            raise InvalidSetting(f"No setting reads the environment variable {name!r}.{_suggest(near)}", origin=name)
    return {keys[name]: GivenValue(value, f"environment {name}") for name, value in given.items() if name in keys}


def _read_file(path: Path, *, required: bool) -> dict[str, GivenValue]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        if not required:
            return {}
        raise InvalidSetting(f"There is no configuration file {path}.", origin=str(path)) from None
    except (OSError, ValueError) as error:
        raise InvalidSetting(f"{path} cannot be read: {error}.", origin=str(path)) from None
    given = {key: GivenValue(value, str(path)) for key, value in _flatten(parse_yaml(text, path))}
    for key in given:
        _require_known(key, str(path))
    return given


def _flatten(document: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for section, values in document.items():
        if isinstance(values, dict):
            yield from ((f"{section}.{name}", value) for name, value in values.items())
        # A section whose settings are all commented out is empty, which is valid.
        elif section not in Settings.model_fields or values not in NULLS:
            yield section, values


# Checks


def _require_known(key: str, origin: str) -> None:
    if key in Settings.model_fields:
        raise InvalidSetting(f"{key} is a section: its settings go below it ({origin}).", key=key, origin=origin)
    if key not in options():
        name = key.rpartition(".")[2]
        near = [known for known in options() if known.endswith(f".{name}")]
        hint = _suggest(near or difflib.get_close_matches(key, options(), n=1))
        raise InvalidSetting(f"There is no setting {key!r} ({origin}).{hint}", key=key, origin=origin)


def _suggest(near: Iterable[str]) -> str:
    words = " or ".join(near)
    return f" Did you mean {words}?" if words else ""


def _validate(given: Mapping[str, GivenValue]) -> Settings:
    sections: dict[str, dict[str, object]] = {}
    for key, (value, _) in given.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    try:
        return Settings.model_validate(sections)
    except ValidationError as error:
        problems = {".".join(map(str, found["loc"][:2])): found["msg"] for found in error.errors(include_input=False)}
    raise InvalidSetting(
        " ".join(_error_message(options()[key], given[key], message) for key, message in problems.items()),
        keys=list(problems),
    )


def _place_in_home(settings: Settings, home: Path, *, skip: Container[str]) -> Settings:
    """Return the settings with relative paths counted from the home, but for the keys in `skip`."""
    placed = {}
    for section, values in settings:
        inside = {
            name: home / value for name, value in values if isinstance(value, Path) and f"{section}.{name}" not in skip
        }
        placed[section] = values.model_copy(update=inside)
    return settings.model_copy(update=placed)


def _error_message(option: Option, given: GivenValue, message: str) -> str:
    if option.secret and option.default is None:
        return f"{option.key}: printable ASCII characters without blanks are expected ({given.origin})."
    if option.secret:
        return f'{option.key}: names with their keys are expected, as in "alice:key1,bob:key2" ({given.origin}).'
    expected = NOISE.sub("", message)
    expected = (expected[0].lower() + expected[1:]).replace("tuple", "list")
    return f"{option.key}: {expected}, not {reprlib.repr(given.value)} ({given.origin})."
