"""Kill the server or its engine repeatedly while clients submit jobs; then check every accepted job.

`python -m tests.system.crash --kills 50` (also `make crash`).
"""

import argparse
import io
import os
import random
import re
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from PIL import Image

from tests.support.live_server import LiveServer, run_server
from tests.support.processes import wait_until_gone

CLIENTS = 3
# Each kill costs the running job a try: the limit of tries must not be what fails it.
PLENTY = ("--set", "queue.tries=1000", "--set", "queue.limit=100000")
COMPLETED = re.compile(r"outcome=completed id=([0-9a-f]{12})|id=([0-9a-f]{12}) .*outcome=completed")


@dataclass
class Ledger:
    """Accepted jobs: the ids that clients got for each idempotency key, and the seeds of each id."""

    ids: dict[str, set[str]] = field(default_factory=dict)
    seeds: dict[str, list[int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    engines: set[int] = field(default_factory=set)

    def record(self, key: str, job_id: str, seeds: list[int]) -> None:
        with self.lock:
            self.ids.setdefault(key, set()).add(job_id)
            self.seeds[job_id] = seeds


def order_until_stopped(ledger: Ledger, client: int) -> None:
    """Run one client: submit small jobs, and resend each under its key until it is accepted."""
    dice = random.Random(client)
    for number in range(10**6):
        seed, count = dice.randrange(1000), dice.choice((1, 2))
        body = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 2, "seed": seed, "num_images": count}
        key = f"client{client}-{number}"
        while not ledger.stop.is_set():
            try:
                headers = {"Idempotency-Key": key}
                reply = requests.post(f"{ledger.url}/api/v1/generate", json=body, headers=headers, timeout=5)
            except requests.RequestException:
                time.sleep(0.02)
                continue
            if reply.status_code == 200:
                ledger.record(key, reply.json()["job_id"], [seed + index for index in range(count)])
                break
            time.sleep(0.05)
        # About as fast as jobs are painted, so that a kill usually interrupts one.
        if ledger.stop.wait(dice.uniform(0.1, 0.5)):
            return


def order_and_kill(folder: Path, kills: int, dice: random.Random) -> tuple[Ledger, Counter[str], Counter[str]]:
    """Run clients and kill processes. Returns the ledger, kills by process, and reports of completion by job."""
    ledger, killed, reported = Ledger(), Counter[str](), Counter[str]()
    clients = [threading.Thread(target=order_until_stopped, args=(ledger, client)) for client in range(CLIENTS)]
    started = False
    while killed.total() < kills:
        with run_server(folder / "output", *PLENTY) as live:
            ledger.url = live.url
            if not started:
                started = True
                for client in clients:
                    client.start()
            while killed.total() < kills:
                time.sleep(dice.uniform(0.05, 1.2))
                ledger.engines |= {child.pid for child in live.engine_processes}
                victim = dice.choice(("server", "engine"))
                killed[victim] += 1
                if victim == "server":
                    live.process.kill()
                    live.process.wait()
                    break
                kill_engine(live)
        reported.update(completed_ids(live))
    ledger.stop.set()
    for client in clients:
        client.join()
    return ledger, killed, reported


def kill_engine(live: LiveServer) -> None:
    for child in live.engine_processes:
        try:
            os.kill(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def completed_ids(live: LiveServer) -> list[str]:
    matches = filter(None, map(COMPLETED.search, live.lines))
    return [match[1] or match[2] for match in matches]


def find_faults(live: LiveServer, ledger: Ledger, folder: Path) -> list[str]:
    """List what is wrong with the jobs, their pictures and the files on disk."""
    faults = [f"{key} was given two jobs: {ids}" for key, ids in ledger.ids.items() if len(ids) > 1]
    for job_id, seeds in ledger.seeds.items():
        job: dict[str, Any] = live.wait_for_status(job_id, seconds=120)
        if job["status"] != "completed":
            faults.append(f"{job_id} is {job['status']}: {job['error']}")
        elif job["result"]["seeds"] != seeds:
            faults.append(f"{job_id} has the seeds {job['result']['seeds']}, not {seeds}")
        else:
            faults += [
                f"{job_id}: {fault}"
                for index in range(len(seeds))
                if (fault := find_picture_fault(live, job_id, index))
            ]
    return faults + find_leftovers(folder / "output")


def find_picture_fault(live: LiveServer, job_id: str, index: int) -> str:
    data = live.get(f"/api/v1/jobs/{job_id}/images/{index}").content
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return "" if image.size == (64, 64) else f"picture {index} is {image.size}"
    except OSError as error:
        return f"picture {index} is broken: {error}"


def find_leftovers(output: Path) -> list[str]:
    """List files that no job refers to, half-written ones included, and ids with two rows."""
    with sqlite3.connect(output / "jobs.db") as db:
        named = " ".join(row[0] for row in db.execute("SELECT pictures FROM jobs"))
        names = [row[0] for row in db.execute("SELECT id FROM jobs")]
    db.close()
    files = [path for path in output.glob("????-??-??/*") if path.is_file()]
    strays = [f"{path.name} belongs to no job" for path in files if path.name not in named]
    twice = [f"{job_id} has two rows" for job_id, count in Counter(names).items() if count > 1]
    return strays + twice


def find_orphans(pids: set[int]) -> list[str]:
    """List engine processes that outlived their servers."""
    return [f"process {pid} is left" for pid in pids if not wait_until_gone(pid, 10)]


def run_trial(folder: Path, kills: int, seed: int) -> tuple[str, list[str]]:
    """Run the trial once. Returns a summary line and the list of faults."""
    ledger, killed, reported = order_and_kill(folder, kills, random.Random(seed))
    with run_server(folder / "output", *PLENTY) as live:
        faults = find_faults(live, ledger, folder)
        ledger.engines |= {child.pid for child in live.engine_processes}
        live.stop()
        reported.update(completed_ids(live))
    faults += [f"{job_id} was completed {count} times" for job_id, count in reported.items() if count > 1]
    faults += find_orphans(ledger.engines)
    sums = ", ".join(f"{count} x {victim}" for victim, count in sorted(killed.items()))
    return f"killed {sums}; {len(ledger.seeds)} jobs accepted, {len(faults)} faults", faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        line, faults = run_trial(Path(folder), arguments.kills, arguments.seed)
    print(line, *faults, sep="\n")  # noqa: T201 - this module is a command
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
