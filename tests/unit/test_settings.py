import contextlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mflux_api import settings as all_settings
from mflux_api.errors import InvalidSetting
from mflux_api.settings import LoadedSettings, Settings, describe, options, render_example
from tests.support.paths import ROOT

DOCUMENTED = {
    "MFLUX_API_HOST": "server.host",
    "MFLUX_API_PORT": "server.port",
    "MFLUX_DEFAULT_MODEL": "models.default",
    "MFLUX_MODELS_DIR": "models.cache_dir",
    "MFLUX_OUTPUT_DIR": "generation.output_dir",
}
SNIPPET = """
server: {host: "0.0.0.0", port: 7861}
models: {default: flux2-klein-4b, auto_download: true, cache_dir: ./models}
generation: {default_steps: 4, max_batch_size: 4, output_dir: ./output}
"""
SAMPLES = {"precision": "float32", "level": "debug", "format": "json", "api_keys": "a:b", "api_auth": "a:b"}
SAMPLES |= {"enabled": "klein", "root": "edge", "ports": "klein:8000"}
SAMPLES |= {"kind": "s3", "bucket": "pictures", "endpoint_url": "https://a", "public_url": "https://a"}
# A key, its default, and three other values: as text and as parsed.
KINDS = [
    ("server.port", 7861, ("1", "2", "3"), (1, 2, 3)),
    ("server.host", "0.0.0.0", ("a", "b", "c"), ("a", "b", "c")),
    ("engine.low_ram", False, ("yes", "off", "1"), (True, False, True)),
    ("engine.memory_budget_gb", None, ("1", "2.5", "3e1"), (1.0, 2.5, 30.0)),
    ("engine.precision", "auto", ("float32", "bfloat16", "float16"), ("float32", "bfloat16", "float16")),
    ("models.cache_dir", Path("models"), ("a", "b", "c"), (Path("a"), Path("b"), Path("c"))),
    ("server.cors_origins", ("*",), ("a", "b, c", "d,"), (("a",), ("b", "c"), ("d",))),
    ("security.api_keys", {}, ("a:x", "b:y, c:z", "d:v:w"), ({"a": "x"}, {"b": "y", "c": "z"}, {"d": "v:w"})),
]
BROKEN = [
    ("server:\n  port: [1", 2),
    ("server:\n\tport: 1", 2),
    ("\n- server", 2),
    ("server: {port: 1}\nserver: {host: a}", 1),
    ("a: 1\nb: \x07", 2),
    ('a: "\n\\UFFFFFFFF"', 2),
    ("[" * 5000, 1),
    ("a: &a [*a]", 1),
]
MISSPELT = [
    ("MFLUX_API_PROT", "MFLUX_API_PORT"),
    ("MFLUX_SERVER_PORT", "MFLUX_API_PORT"),
    ("MFLUX_MODELS_DEFAULT", "MFLUX_DEFAULT_MODEL"),
    ("MFLUX_QUEUE_LIMITS", "MFLUX_QUEUE_LIMIT"),
]
BAD = [
    ("server.port", "abc", "input should be a valid integer, not 'abc'"),
    ("server.port", "65536", "input should be less than or equal to 65535, not '65536'"),
    ("server.allowed_hosts", ",", "list should have at least 1 item, not ','"),
    ("server.body_seconds", "0", "input should be greater than 0, not '0'"),
    ("queue.keep_gb", "nan", "input should be a finite number, not 'nan'"),
    ("engine.memory_budget_gb", "-1", "input should be greater than 0, not '-1'"),
    ("engine.precision", "int4", "input should be 'auto', 'float32', 'bfloat16' or 'float16', not 'int4'"),
    ("engine.low_ram", "maybe", "input should be a valid boolean, not 'maybe'"),
    ("generation.default_width", "520", "input should be a multiple of 16, not '520'"),
    ("generation.output_dir", "null", "input is not a valid path, not 'null'"),
    ("models.cache_dir", "~nobody-here/m", "input should not be in the home of an unknown user"),
]
KEYLESS = ["{alice: }", "{alice: null}", "{alice: ~}", "{alice: [hunter2]}", "[hunter2]"]
KEYLESS += ["'hunter2'", "'alice:'", "':hunter2'", "'a:hunter2,a:x'", "'a:hunter2 x'", "'a:hunter2é'"]
UNKNOWN = [
    ("server: {prot: 1}", "There is no setting 'server.prot' (config.yaml). Did you mean server.port?"),
    ("sever: {port: 1}", "There is no setting 'sever.port' (config.yaml). Did you mean server.port?"),
    ("port: 1", "There is no setting 'port' (config.yaml). Did you mean server.port?"),
    ("server: 1", "server is a section: its settings go below it (config.yaml)."),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(arguments: Mapping[str, str], environ: Mapping[str, str], file: Path | None) -> LoadedSettings:
    """Load with the working directory as the home."""
    return all_settings.load(arguments, environ, file, home=Path())


def write(text: str | bytes) -> Path:
    path = Path("config.yaml")
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def value(loaded: LoadedSettings, key: str) -> object:
    section, _, name = key.partition(".")
    return getattr(getattr(loaded.settings, section), name)


def yaml_of(key: str, text: str) -> str:
    section, _, name = key.partition(".")
    return f"{section}:\n  {name}: {text!r}\n"


def other_value(key: str) -> str:
    """Return a valid text for a setting, other than its default."""
    default = options()[key].default
    if isinstance(default, bool):
        return str(not default).lower()
    return SAMPLES.get(key.partition(".")[2], str(int(default) + 16) if isinstance(default, int | float) else "64")


@pytest.mark.parametrize(("key", "default", "texts", "values"), KINDS)
def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(
    key: str, default: object, texts: tuple[str, str, str], values: tuple[object, ...]
) -> None:
    option = options()[key]
    assert value(load({}, {}, None), key) == default
    write(yaml_of(key, texts[0]))
    assert value(load({}, {}, None), key) == values[0]
    assert value(load({}, {option.env: texts[1]}, None), key) == values[1]
    assert value(load({key: texts[2]}, {option.env: texts[1]}, None), key) == values[2]


@pytest.mark.parametrize(("variable", "key"), DOCUMENTED.items())
def test_a_documented_environment_variable_sets_its_option(variable: str, key: str) -> None:
    loaded = load({}, {variable: "8080"}, None)
    assert str(value(loaded, key)) == "8080"
    assert loaded.origins[key] == f"environment {variable}"


@pytest.mark.parametrize("key", options())
def test_there_is_one_environment_variable_for_every_setting(key: str) -> None:
    variable = options()[key].env
    assert [option.key for option in options().values() if option.env == variable] == [key]
    assert DOCUMENTED.get(variable, key) == key
    assert variable in DOCUMENTED or variable == "MFLUX_" + key.replace(".", "_").upper()
    loaded = load({}, {variable: other_value(key)}, None)
    assert {name for name, origin in loaded.origins.items() if origin != "default"} == {key}
    assert value(loaded, key) != options()[key].default


def test_every_origin_is_told() -> None:
    write("server: {host: a, port: 1}\nqueue: {limit: 5}")
    origins = load({"server.port": "2", "queue.tries": "3"}, {"MFLUX_API_HOST": "b"}, None).origins
    assert list(origins) == list(options())
    assert origins["server.host"] == "environment MFLUX_API_HOST"
    assert origins["server.port"] == "command line --port"
    assert origins["queue.tries"] == "command line --set queue.tries"
    assert origins["queue.limit"] == "config.yaml"
    assert origins["queue.keep_gb"] == "default"


def test_empty_variables_and_those_that_others_read_are_left_alone() -> None:
    environ = {"MFLUX_API_PORT": "", "MFLUX_SERVER_NONSENSE": "", "MFLUX_CACHE_DIR": "x", "PORT": "x"}
    loaded = load({}, environ, None)
    assert (loaded.settings, loaded.origins["server.port"]) == (Settings(), "default")


@pytest.mark.parametrize("text", ["", "null", "~"])
def test_null_unsets_what_can_be_unset(text: str) -> None:
    file = write("models: {cache_dir: m, lora_dir: there}\nengine: {memory_budget_gb: 3}")
    assert load({}, {}, file).settings.models.lora_folder == Path("there")
    settings = load({"models.lora_dir": text, "engine.memory_budget_gb": text}, {}, file).settings
    assert (settings.models.lora_folder, settings.engine.memory_budget_gb) == (Path("m/loras"), None)


@pytest.mark.parametrize(("yes", "no"), [("true", "false"), ("1", "0"), ("yes", "no"), ("on", "off"), ("TRUE", "Off")])
def test_yes_and_no_have_many_words(yes: str, no: str) -> None:
    settings = load({"logging.prompts": yes}, {}, write(f"models: {{auto_download: {no}}}")).settings
    assert (settings.logging.prompts, settings.models.auto_download) == (True, False)


def test_lists_and_mappings_are_written_plainly_in_the_file() -> None:
    file = write("server:\n  cors_origins:\n    - a\n    - b\nsecurity:\n  api_keys:\n    alice: 1234\n    bob: k:2")
    settings = load({}, {}, file).settings
    assert settings.server.cors_origins == ("a", "b")
    assert settings.security.api_keys == {"alice": "1234", "bob": "k:2"}


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    assert load({"models.cache_dir": "~/m"}, {}, None).settings.models.cache_dir == Path("/home/alice/m")


FOLDERS = ("models.cache_dir", "models.lora_dir", "generation.styles_file", "generation.output_dir")


@pytest.mark.parametrize("key", FOLDERS)
def test_relative_paths_of_the_file_count_from_the_home_and_typed_ones_from_the_working_directory(
    key: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.yaml").write_text(yaml_of(key, "mine"))
    assert value(all_settings.load({}, {}, None, home=home), key) == home / "mine"
    assert value(all_settings.load({}, {options()[key].env: "mine"}, None, home=home), key) == Path("mine")
    assert value(all_settings.load({key: "mine"}, {}, None, home=home), key) == Path("mine")
    (home / "config.yaml").write_text(yaml_of(key, "/mine"))
    assert value(all_settings.load({}, {}, None, home=home), key) == Path("/mine")


def test_the_defaults_lie_in_the_home(tmp_path: Path) -> None:
    chosen = all_settings.load({}, {}, None, home=tmp_path).settings
    assert (chosen.models.cache_dir, chosen.models.lora_folder) == (tmp_path / "models", tmp_path / "models" / "loras")
    assert chosen.generation.output_dir == tmp_path / "output"
    assert chosen.generation.styles_file == tmp_path / "styles.csv"


@pytest.mark.parametrize(("key", "text", "expected"), BAD)
def test_a_bad_value_is_refused_with_its_key_and_place(key: str, text: str, expected: str) -> None:
    option = options()[key]
    places = {
        option.origin: ({key: text}, {}, ""),
        f"environment {option.env}": ({}, {option.env: text}, ""),
        "config.yaml": ({}, {}, yaml_of(key, text)),
    }
    for place, (arguments, environ, file) in places.items():
        with pytest.raises(InvalidSetting) as caught:
            load(arguments, environ, write(file))
        assert caught.value.message.startswith(f"{key}: {expected}")
        assert caught.value.message.endswith(f"({place}).")


def test_all_bad_values_are_named_at_once() -> None:
    with pytest.raises(InvalidSetting) as caught:
        load({"server.port": "a"}, {"MFLUX_QUEUE_LIMIT": "b"}, write("logging: {level: [loud]}"))
    assert caught.value.code == "INVALID_SETTING"
    assert caught.value.details["keys"] == ["server.port", "queue.limit", "logging.level"]
    for place in ("(command line --port)", "(environment MFLUX_QUEUE_LIMIT)", "(config.yaml)"):
        assert place in caught.value.message


@pytest.mark.parametrize(("text", "message"), UNKNOWN)
def test_an_unknown_key_of_the_file_is_refused_with_the_nearest(text: str, message: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        load({}, {}, write(text))
    assert caught.value.message == message


def test_an_unknown_key_of_the_command_line_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"'queue.limits' \(command line --set queue.limits\)\. .* queue\.limit\?"):
        load({"queue.limits": "1"}, {}, None)


@pytest.mark.parametrize(("variable", "nearest"), MISSPELT)
def test_an_unknown_variable_that_looks_like_ours_is_refused(variable: str, nearest: str) -> None:
    with pytest.raises(InvalidSetting, match=rf"'{variable}'\. Did you mean {nearest}\?"):
        load({}, {variable: "x"}, None)


@pytest.mark.parametrize(("text", "line"), BROKEN)
def test_a_broken_file_is_refused_with_the_line(text: str, line: int) -> None:
    with pytest.raises(InvalidSetting, match=rf"^config\.yaml, line {line}: ") as caught:
        load({}, {}, write(text))
    assert caught.value.details["line"] == line


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"There is no configuration file other\.yaml"):
        load({}, {}, Path("other.yaml"))
    with pytest.raises(InvalidSetting, match="cannot be read"):
        load({}, {}, tmp_path)


@pytest.mark.parametrize("text", ["", "# nothing", "server:\nqueue: null\n", "\ufeffserver:\n"])
def test_a_file_that_sets_nothing_changes_nothing(text: str) -> None:
    assert load({}, {}, write(text)).settings == Settings()


@pytest.mark.parametrize("keys", KEYLESS)
def test_api_keys_without_a_name_or_a_key_are_refused_without_showing_them(keys: str) -> None:
    with pytest.raises(InvalidSetting, match=r"security\.api_keys: names with their keys are expected") as caught:
        load({}, {}, write(f"security: {{api_keys: {keys}}}"))
    assert "hunter2" not in caught.value.message


def test_a_broken_file_is_not_quoted() -> None:
    with pytest.raises(InvalidSetting) as caught:
        load({}, {}, write("security:\n  api_keys:\n    alice: hunter2\n   bob: x"))
    assert "hunter2" not in caught.value.message


def test_the_description_has_one_line_a_setting_and_hides_api_keys() -> None:
    loaded = load({"security.api_keys": "alice:hunter2", "server.host": "a\nb"}, {"MFLUX_API_PORT": "80"}, None)
    lines = list(describe(loaded))
    assert [line.partition(" = ")[0] for line in lines] == list(options())
    assert "server.port = 80 (environment MFLUX_API_PORT)" in lines
    assert 'security.api_keys = {"alice": "***"} (command line --set security.api_keys)' in lines
    assert not [line for line in lines if "\n" in line]
    assert "hunter2" not in repr(loaded)


def test_the_example_file_is_the_declarations_and_loads_to_the_defaults() -> None:
    file = ROOT / "config.yaml.example"
    assert file.read_text(encoding="utf-8") == render_example()
    loaded = load({}, {}, file)
    assert (loaded.settings, set(loaded.origins.values())) == (Settings(), {str(file)})


def test_the_documented_file_loads() -> None:
    assert load({}, {}, write(SNIPPET)).settings == Settings()


def load_or_refuse(arguments: dict[str, str], environ: dict[str, str], file: Path) -> None:
    with contextlib.suppress(InvalidSetting):
        assert len(list(describe(load(arguments, environ, file)))) == len(options())


@given(st.text() | st.text(alphabet="server:port{}[]&*!|>-'\"\\%# \n01x") | st.binary())
def test_any_file_loads_or_is_refused(text: str | bytes) -> None:
    load_or_refuse({}, {}, write(text))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates()
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
TEXTS = st.text() | st.floats().map(str) | st.sampled_from(["1", "~", "null", ":", ",", "~a", "a:b"])
NAMES = sorted({key.partition(".")[2] for key in options()})


@given(st.dictionaries(st.sampled_from([*Settings.model_fields]), st.dictionaries(st.sampled_from(NAMES), ANYTHING)))
def test_any_values_in_the_file_load_or_are_refused(document: dict[str, object]) -> None:
    load_or_refuse({}, {}, write(yaml.safe_dump(document, allow_unicode=True)))


@given(
    st.dictionaries(st.sampled_from(sorted(options())) | st.text(), TEXTS),
    st.dictionaries(st.sampled_from([option.env for option in options().values()]) | st.text(), TEXTS),
)
def test_any_arguments_and_environment_load_or_are_refused(arguments: dict[str, str], environ: dict[str, str]) -> None:
    load_or_refuse(arguments, environ, write(""))
