"""`doctor`: find what is missing, slow or misconfigured on this machine, and advise what to do."""

import asyncio
import mmap
import os
import platform
import re
import resource
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import psutil
from huggingface_hub import get_token

from mflux_api.app.wiring import make_bucket
from mflux_api.commands.probe import MlxInfo, probe_mlx
from mflux_api.errors import InvalidSetting
from mflux_api.jobs.disk_space import ADVICE, LOW
from mflux_api.models.registry import ModelSpec, find_spec, find_unregistered_models, is_downloaded, load_registry
from mflux_api.net.s3 import BucketFailed, BucketRefused
from mflux_api.settings import Settings

GIB = 1024**3
GIGABYTE = 1000**3
REAL_MODEL = "flux2-klein-4b"
# MLX's Linux wheel links the reference BLAS, which reaches 4 GFLOP/s. Any other BLAS reaches 50, even on old machines.
SLOWEST_GFLOPS = 10
LEAST_FILES = 1024
SAFE_SQLITE = (3, 51, 3)
SAFE_SQLITE_TEXT = ".".join(map(str, SAFE_SQLITE))
NETWORKS = {"nfs", "nfs4", "smbfs", "cifs", "smb3", "afpfs", "webdav", "9p", "fuse.sshfs", "fuse.rclone", "macfuse"}
CLOUDS = {"Mobile Documents", "CloudStorage", "Dropbox", "OneDrive", "Google Drive", "Nextcloud"}
MATRIX_KERNEL = b"steel_gemm_fused_nax"
REINSTALL = "Install mflux-api again; in a checkout: make clean, then make demo."
WITHOUT_DRIVER = "MLX's CUDA build needs NVIDIA's driver. Install the CPU build instead: the README says how."
State = Literal["ok", "note", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    "fail": the server cannot work. "warn": it is slow or unsafe. "note": for information.
    """

    subject: str
    state: State
    message: str
    advice: str = ""


def run(home: Path, models_dir: Path, output_dir: Path, more: Iterable[Finding] = ()) -> int:
    """Print the home, then each finding as soon as it is known, then `more`. Returns 1 if any failed, else 0."""
    states: list[State] = []
    first = Finding("home", "ok", str(home.absolute()))
    for finding in chain([first], check_machine(models_dir, output_dir), more):
        states.append(finding.state)
        print(f"{finding.state:5} {finding.subject:12} {finding.message}", flush=True)
        if finding.advice:
            print(f"{'':18} {finding.advice}", flush=True)
    print(f"\n{states.count('fail')} failed, {states.count('warn')} to look at.")
    return 1 if "fail" in states else 0


def check_machine(models_dir: Path, output_dir: Path) -> Iterator[Finding]:
    """Run all checks but that of the bucket."""
    yield from _check_system()
    found = probe_mlx()
    yield from _check_mlx(found)
    yield from _check_memory(found.budget if isinstance(found, MlxInfo) else None)
    yield from check_folder("models", models_dir, int((find_spec(REAL_MODEL).size_gb or 0) * GIGABYTE))
    yield from check_folder("output", output_dir, LOW)
    yield from check_database_folder(
        output_dir, ((part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True))
    )
    yield from _check_limits()
    yield from _check_models(models_dir)
    yield _check_token()


# The system


def _check_system() -> Iterator[Finding]:
    yield _check_macos() if sys.platform == "darwin" else Finding("system", "ok", _describe_linux())
    yield Finding("python", "ok", f"{platform.python_version()}, {sys.executable}")


def _check_macos() -> Finding:
    version, machine = platform.mac_ver()[0], platform.machine()
    if machine != "arm64":
        advice = "MLX needs Apple silicon, and a native Python that does not run under Rosetta."
        return Finding("system", "fail", f"macOS {version} on {machine}", advice)
    if parse_version(version) < (14,):
        return Finding("system", "fail", f"macOS {version}", "MLX needs macOS 14 or newer.")
    return Finding("system", "ok", f"macOS {version}")


def _describe_linux() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = platform.system()
    return f"{name}, {' '.join(platform.libc_ver())}, {platform.machine()}"


def parse_version(version: str) -> tuple[int, ...]:
    """Parse a version: "26.2.1" becomes (26, 2, 1)."""
    return tuple(map(int, re.findall(r"\d+", version)))


# MLX


def _check_mlx(found: MlxInfo | str) -> Iterator[Finding]:
    if isinstance(found, str):
        yield Finding("mlx", "fail", found, WITHOUT_DRIVER if "libcuda" in found else REINSTALL)
        return
    yield Finding("chip", "ok", found.chip)
    yield Finding("mlx", "ok", f"{found.version} on {found.device}")
    yield check_speed(found)
    if found.device == "cpu":
        yield _check_gpu(found)
    if found.device == "metal":
        yield from check_apple_chip(found.chip, platform.mac_ver()[0], Path(found.kernels))


def check_speed(found: MlxInfo) -> Finding:
    """Judge the speed of a float32 matrix product."""
    message = f"{found.gflops:.0f} GFLOP/s in float32"
    if found.gflops >= SLOWEST_GFLOPS:
        return Finding("speed", "ok", message)
    if found.openblas is None and found.device == "cpu":
        advice = "MLX uses its slow reference BLAS. Install opencv-python beside it, or the system's libopenblas."
    else:
        advice = "Other programs may keep the machine busy; try again when it is idle."
    return Finding("speed", "warn", message, advice)


def _check_gpu(found: MlxInfo) -> Finding:
    if sys.platform == "darwin":
        return Finding("gpu", "warn", "MLX finds none.", "A virtual machine may have none; otherwise update macOS.")
    blas = f"OpenBLAS from {found.openblas}" if found.openblas else "No OpenBLAS"
    return Finding("gpu", "note", f"None: flux2-tiny takes seconds, real models many minutes a picture. {blas}.")


def check_apple_chip(chip: str, system: str, kernels: Path) -> Iterator[Finding]:
    """Check what depends on the generation of Apple's chip: bfloat16 and matrix units."""
    generation = re.search(r"Apple M(\d+)", chip)
    if generation is None:
        return
    if int(generation[1]) <= 2:
        advice = "engine.precision: float16 may be faster. Compare the pictures first: float16 overflows more easily."
        yield Finding("bfloat16", "note", "M1 and M2 have no instructions for it and emulate it.", advice)
    if int(generation[1]) >= 5:
        yield _check_matrix_units(system, kernels)


def _check_matrix_units(system: str, kernels: Path) -> Finding:
    if parse_version(system) < (26, 2):
        advice = "With macOS 26.2 or newer MLX is about three times faster on this chip."
        return Finding("matrix units", "warn", f"macOS {system} does not use them.", advice)
    used = _file_contains(kernels, MATRIX_KERNEL)
    if used is None:
        return Finding("matrix units", "note", f"Unknown: {kernels} cannot be read.")
    if not used:
        advice = "Install mlx and mlx-metal with pip on this macOS: the wheel for macOS 26 has them."
        return Finding("matrix units", "warn", "This build of MLX has no kernels for them.", advice)
    return Finding("matrix units", "ok", "used")


def _file_contains(file: Path, word: bytes) -> bool | None:
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(word) >= 0
    except (OSError, ValueError):
        return None


# Memory and disks


def _check_memory(budget: int | None) -> Iterator[Finding]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    message = f"{_format_size(memory.total)}, {_format_size(memory.available)} free"
    if budget is None or memory.available >= budget:
        yield Finding("memory", "ok", message)
    else:
        advice = f"The engine may use {_format_size(budget)}. Close other programs, or lower engine.memory_budget_gb."
        yield Finding("memory", "note", message, advice)
    if swap.used > memory.total / 10:
        yield Finding("swap", "warn", f"{_format_size(swap.used)} in use", "Swapped memory is very slow. Free memory.")
    else:
        yield Finding("swap", "ok", f"{_format_size(swap.used)} in use")


def check_folder(subject: str, path: Path, space: int) -> Iterator[Finding]:
    """Check that a folder can be written to or created, and that its disk has `space` bytes free."""
    folder = path.absolute()
    nearest = next(parent for parent in (folder, *folder.parents) if os.access(parent, os.F_OK))
    problem = _find_write_error(nearest)
    if problem:
        # A read-only folder of models can still be used.
        state: State = "warn" if subject == "models" and folder.is_dir() else "fail"
        yield Finding(subject, state, f"{folder} cannot be written to: {problem}.", "Choose another folder.")
        return
    free = shutil.disk_usage(nearest).free
    message = f"{folder}{'' if nearest == folder else ' (not there yet)'}, {_format_size(free)} free"
    if free >= space:
        yield Finding(subject, "ok", message)
    else:
        yield Finding(subject, "warn", message, f"{_format_size(space)} should be free: {_space_reason(subject)}")


def _space_reason(subject: str) -> str:
    if subject == "models":
        return f"{REAL_MODEL} needs that much."
    return f"pictures stay until they are deleted, and jobs are refused when the disk is full. {ADVICE}"


def _find_write_error(folder: Path) -> str:
    """Return why the folder cannot be written to, or "" if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def check_database_folder(path: Path, mounts: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    """Warn if the job database is on a network disk or synced folder, where SQLite's locking or syncing fails.

    `mounts`: (mount point, file system type).
    """
    folder = path.expanduser().resolve()
    around = [(place, kind) for place, kind in mounts if folder.is_relative_to(place)]
    kind = max(around, key=lambda mount: len(mount[0]), default=("", ""))[1]
    if kind.lower() in NETWORKS:
        where = f"on a network disk ({kind})"
    elif CLOUDS.intersection(folder.parts):
        where = "in a folder that is synced to a cloud"
    else:
        return
    advice = "The job database can be damaged there. Set generation.output_dir to a folder on a local disk."
    yield Finding("output", "warn", f"{folder} is {where}.", advice)


def _format_size(count: float) -> str:
    return f"{count / GIB:.1f} GiB"


# Limits and libraries


def _check_limits() -> Iterator[Finding]:
    yield check_sqlite(sqlite3.sqlite_version)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY or soft >= LEAST_FILES:
        yield Finding("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else f"up to {soft}")
    else:
        yield Finding("open files", "warn", f"up to {soft}", "Every client uses one. Before starting: ulimit -n 4096")


def check_sqlite(version: str) -> Finding:
    if parse_version(version) >= SAFE_SQLITE:
        return Finding("sqlite", "ok", version)
    message = f"{version}: before {SAFE_SQLITE_TEXT}, two programs that write at once can damage a database."
    return Finding("sqlite", "warn", message, "Do not open jobs.db with another program while the server runs.")


# Models


def _check_models(models_dir: Path) -> Iterator[Finding]:
    named = [spec for spec in load_registry().values() if spec.quantize is None]
    try:
        here = [spec for spec in chain(named, find_unregistered_models(models_dir)) if is_downloaded(spec, models_dir)]
    except OSError as error:
        yield Finding("models", "fail", f"{models_dir} cannot be read: {error.strerror}.")
        return
    for spec in here:
        yield _describe_model(spec)
    missing = sum(spec not in here and not spec.unavailable for spec in named)
    yield Finding("models", "ok", f"{len(here)} here, {missing} more to download: mflux-api models")


def _describe_model(spec: ModelSpec) -> Finding:
    home = "part of this project" if spec.name in load_registry() else "a folder of your own"
    message = f"{spec.name}, {spec.licence or home}{f', {spec.size_gb:g} GB' if spec.size_gb else ''}"
    if spec.capabilities.enlarges:
        message += ", enlarges pictures"
    if spec.unavailable:
        return Finding("model", "note", f"{message}: {spec.unavailable}")
    return Finding("model", "note" if "non-commercial" in spec.licence.lower() else "ok", message)


def _check_token() -> Finding:
    if get_token():
        return Finding("hf token", "ok", "set")
    advice = "Accept the licence on the model's page, then: hf auth login"
    return Finding("hf token", "note", "Not set: gated models cannot be downloaded.", advice)


SUBJECT = "storage"


def check_bucket(settings: Settings) -> Iterator[Finding]:
    """Check that the configured bucket can be written to and read. Yields nothing without a bucket."""
    if settings.storage.kind == "local":
        return
    try:
        found = make_bucket(settings)
        assert found is not None
        asyncio.run(found.check())
    except InvalidSetting as error:
        yield Finding(SUBJECT, "fail", error.message)
    except BucketRefused as error:
        yield Finding(SUBJECT, "fail", error.message, "Check storage.bucket, its region, its keys and permissions.")
    except BucketFailed as error:
        yield Finding(SUBJECT, "warn", error.message, "Check storage.endpoint_url and the network.")
    else:
        yield Finding(SUBJECT, "ok", f"bucket {settings.storage.bucket}: written to and read")
