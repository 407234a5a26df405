"""Command line: parse arguments, run a command, and turn errors into one line and an exit code."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mflux_api.errors import InvalidRequest, MfluxError
from mflux_api.home import MODELS_DIR, OUTPUT_DIR, find_home
from mflux_api.settings import options
from mflux_api.version import __version__

OK, FAILED, BAD_INPUT, CANCELLED = 0, 1, 2, 130

HOME_HELP = (
    "folder of config.yaml, models, output and logs (default: MFLUX_HOME, or ~/.mflux-api; in a checkout the working "
    "directory)"
)
# A flag that takes several values and may be repeated.
SEVERAL: dict[str, Any] = {"action": "extend", "nargs": "+", "default": []}
# Flags of `generate` that `chat` has too.
CHAT = ("--model", "--steps", "--quantize", "--precision", "--low-ram", "--models-dir", "--output")
# Flags of `generate`, with their arguments for argparse.
GENERATE: dict[str, dict[str, Any]] = {
    "--model": {"default": "flux2-tiny", "metavar": "NAME|FOLDER", "help": "default: %(default)s, the embedded model"},
    "--size": {"metavar": "WIDTHxHEIGHT", "help": "in pixels, multiples of 16, at least 64, e.g. 512x512"},
    "--steps": {"type": int, "metavar": "N", "help": "denoising steps (default: the model's)"},
    "--seed": {"type": int, "metavar": "N", "help": "seed of the first picture (default: random)"},
    "--n": {"type": int, "default": 1, "metavar": "N", "help": "number of pictures; seeds count up (default: 1)"},
    "--guidance": {"type": float, "metavar": "X", "help": "above 1: follow the prompt more closely; base models only"},
    "--negative": {"metavar": "TEXT", "help": "negative prompt: what to avoid; needs guidance above 1"},
    "--image": {"type": Path, "metavar": "FILE", "help": "picture to repaint"},
    "--strength": {"type": float, "default": 0.75, "metavar": "X", "help": "0 keeps it, 1 ignores it (default: 0.75)"},
    "--mask": {"type": Path, "metavar": "FILE", "help": "part of --image to repaint: white is painted, black is kept"},
    "--reference": {"type": Path, **SEVERAL, "metavar": "FILE", "help": "reference pictures for an edit"},
    "--lora": {**SEVERAL, "metavar": "NAME:SCALE", "help": "LoRA adapters, by name or path"},
    "--upsample-prompt": {"action": "store_true", "help": "let the text encoder expand the prompt first"},
    "--quantize": {"type": int, "metavar": "BITS", "help": "quantize the weights to 3, 4, 6 or 8 bits"},
    "--precision": {"default": "auto", "metavar": "TYPE", "help": "auto, float32, bfloat16 or float16"},
    "--low-ram": {"action": "store_true", "help": "unload the text encoder before denoising"},
    "--models-dir": {"type": Path, "metavar": "DIR", "help": "default: models in the home"},
    "--output": {"type": Path, "metavar": "DIR|FILE", "help": "default: output in the home"},
}


def main(argv: Sequence[str]) -> int:
    """Run a command and return its exit code: 0 done, 1 failed, 2 bad input, 130 cancelled."""
    arguments = _build_parser().parse_args(argv)
    try:
        _place_folders(arguments)
        code: int | None = arguments.command(arguments)
    except MfluxError as error:
        return _print_error(error, error.message, debug=arguments.debug)
    except ImportError as error:
        # MLX's CUDA build on a machine without NVIDIA's driver, for example.
        return _print_error(error, f"{error}. `mflux-api doctor` says what is missing.", debug=arguments.debug)
    except KeyboardInterrupt:
        print("Cancelled.", file=sys.stderr)
        return CANCELLED
    except BrokenPipeError:
        # The reader of our output is gone, so there is no point in printing an error.
        return FAILED
    except OSError as error:
        return _print_error(error, f"{error.filename}: {error.strerror}", debug=arguments.debug)
    return OK if code is None else code


def _place_folders(arguments: argparse.Namespace) -> None:
    """Find the home, and put the folders that were not named into it."""
    arguments.home = find_home(arguments.home)
    for name, folder in (("models_dir", MODELS_DIR), ("output", OUTPUT_DIR)):
        if getattr(arguments, name, folder) is None:
            setattr(arguments, name, arguments.home / folder)


def run() -> NoReturn:
    """Run the command of the process's arguments, and exit."""
    leave(main(sys.argv[1:]))


def leave(code: int) -> NoReturn:
    """Flush the output and exit at once, without Python's shutdown.

    The shutdown takes a moment, and an obstore thread that completes a request during it aborts the process.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or FAILED
    os._exit(code)


def _print_error(error: Exception, message: str, *, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    # A quoted path may contain line breaks; the message must stay on one line.
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT if isinstance(error, InvalidRequest) else FAILED


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mflux-api", description="FLUX.2 on MLX.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate_commands(commands)
    _add_server_commands(commands)
    for command in commands.choices.values():
        command.add_argument("--home", type=Path, metavar="DIR", help=HOME_HELP)
        command.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return parser


def _add_generate_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    # argparse's own usage has the prompt last, where --reference and --lora would take it as one of their values.
    usage = "mflux-api generate PROMPT [OPTION ...]"
    painting = commands.add_parser("generate", help="paint pictures from a prompt", usage=usage)
    painting.add_argument("prompt")
    for flag, facts in GENERATE.items():
        painting.add_argument(flag, **facts)
    painting.set_defaults(command=_run_generate)
    talking = commands.add_parser("chat", help="paint prompts interactively; type quit to leave")
    for flag in CHAT:
        talking.add_argument(flag, **GENERATE[flag])
    talking.set_defaults(command=_run_chat)
    listing = commands.add_parser("models", help="list the models and which of them are on this machine")
    listing.add_argument("--models-dir", **GENERATE["--models-dir"])
    listing.set_defaults(command=_run_models)
    saving = commands.add_parser("save", help="quantize a model and write it to a folder")
    saving.add_argument("folder", type=Path)
    for flag in ("--model", "--quantize", "--models-dir"):
        saving.add_argument(flag, **GENERATE[flag])
    saving.set_defaults(command=_run_save)
    timing = commands.add_parser("bench", help="time a model on this machine")
    for flag in ("--model", "--models-dir"):
        timing.add_argument(flag, **GENERATE[flag])
    timing.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file as well")
    timing.add_argument("--sizes", type=int, nargs="+", default=[256, 512], metavar="N", help="default: 256 512")
    timing.add_argument("--repeats", type=int, default=5, metavar="N", help="default: %(default)s")
    timing.add_argument("--server", action="store_true", help="measure the server's overhead instead")
    timing.add_argument("--jobs", type=int, default=500, metavar="N", help="with --server: jobs of the memory test")
    timing.set_defaults(command=_run_bench)


def _add_server_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serving = commands.add_parser("serve", help="start the server")
    serving.set_defaults(command=_run_serve)
    showing = commands.add_parser("settings", help="print every setting of the server and its origin")
    showing.add_argument("--example", action="store_true", help="print a complete configuration file instead")
    showing.set_defaults(command=_run_settings)
    examining = commands.add_parser("doctor", help="find what is missing, slow or misconfigured on this machine")
    examining.set_defaults(command=_run_doctor)
    _add_service_command(commands)
    for parser in (serving, showing, examining):
        parser.add_argument("--config", type=Path, metavar="FILE", help="default: config.yaml in the home")
        parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="set any setting by name")
        for option in options().values():
            if option.flag:
                # argparse treats % in help texts as a format.
                text = option.help.replace("%", "%%")
                parser.add_argument(option.flag, dest=option.key, metavar="VALUE", help=text)


def _add_service_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = commands.add_parser("service", help="run the server in the background, from login on (macOS)")
    parser.add_argument("action", choices=("install", "uninstall", "status", "logs"))
    parser.add_argument("--print", action="store_true", help="print the service's file and change nothing")
    parser.add_argument("--lines", type=int, default=50, metavar="N", help="logs: how many (default: %(default)s)")
    parser.add_argument("--no-follow", action="store_true", help="logs: do not wait for new lines")
    parser.set_defaults(command=_run_service)


def _parse_settings(arguments: argparse.Namespace) -> dict[str, str]:
    """Collect the settings of the command line by their dotted names. Raises InvalidRequest for a --set without `=`."""
    given: dict[str, str] = {}
    for pair in arguments.set:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InvalidRequest(f"--set needs NAME=VALUE, not {pair!r}.", field="set")
        given[name.strip()] = value
    flags = {key: value for key, value in vars(arguments).items() if "." in key and value is not None}
    return {**given, **flags}


# Each command imports its libraries when it runs, so `--help` is fast and the server never loads MLX.


def _run_generate(arguments: argparse.Namespace) -> None:
    from mflux_api.commands.generate import generate

    generate(arguments)


def _run_chat(arguments: argparse.Namespace) -> None:
    from mflux_api.commands.chat import chat

    chat(arguments)


def _run_models(arguments: argparse.Namespace) -> None:
    from mflux_api.commands.models import models

    models(arguments)


def _run_save(arguments: argparse.Namespace) -> None:
    from mflux_api.commands.models import save

    save(arguments)


def _run_bench(arguments: argparse.Namespace) -> None:
    from mflux_api.commands.models import bench

    bench(arguments)


def _run_serve(arguments: argparse.Namespace) -> int:
    from mflux_api.commands.serve import run_server

    return run_server(_parse_settings(arguments), arguments.config, home=arguments.home)


def _run_service(arguments: argparse.Namespace) -> int:
    from mflux_api.commands.service import run

    return run(
        arguments.action,
        arguments.home,
        print_only=arguments.print,
        lines=arguments.lines,
        follow=not arguments.no_follow,
    )


def _run_settings(arguments: argparse.Namespace) -> None:
    from mflux_api.commands.settings import print_settings

    print_settings(_parse_settings(arguments), arguments.config, home=arguments.home, example=arguments.example)


def _run_doctor(arguments: argparse.Namespace) -> int:
    from mflux_api.commands.settings import load_settings

    chosen = load_settings(_parse_settings(arguments), arguments.config, home=arguments.home).settings
    from mflux_api.commands.doctor import check_bucket, run

    return run(arguments.home, chosen.models.cache_dir, chosen.generation.output_dir, check_bucket(chosen))
