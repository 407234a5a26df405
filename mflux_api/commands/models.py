"""`models`, `save` and `bench`: list, convert and time models."""

import argparse
import json
import os

from mflux_api.errors import InvalidRequest


def models(arguments: argparse.Namespace) -> None:
    """Print one line per model: whether it is on this machine, its name, its description."""
    from mflux_api.models.registry import is_downloaded, load_registry

    for spec in load_registry().values():
        mark = "here" if is_downloaded(spec, arguments.models_dir) else "-"
        bits = f", quantized to {spec.quantize} bits while loading" if spec.quantize else ""
        print(f"{mark:5} {spec.name:32} {spec.description}{bits}")


def save(arguments: argparse.Namespace) -> None:
    """Load a model, quantize it, and write it to a folder."""
    from mflux_api.engine.model import load_model

    model = load_model(arguments.model, quantize=arguments.quantize, models_dir=arguments.models_dir)
    model.save(arguments.folder)
    print(arguments.folder)


def bench(arguments: argparse.Namespace) -> None:
    """Print the benchmark table, each line as soon as it is measured. Raises InvalidRequest."""
    if arguments.repeats < 1:
        raise InvalidRequest(f"--repeats must be 1 or more, not {arguments.repeats}.", field="repeats")
    # Disables mflux's own progress bar. tqdm reads the variable when it is imported.
    os.environ["TQDM_DISABLE"] = "1"
    from mflux_api.engine.bench import run_benchmark

    if arguments.server:
        from mflux_api.commands.bench_server import measure_server as serve

        found = serve(arguments.jobs)
    else:
        found = run_benchmark(arguments.model, arguments.sizes, arguments.repeats, arguments.models_dir)
    figures = []
    for figure in found:
        print(figure, flush=True)
        figures.append(vars(figure))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
