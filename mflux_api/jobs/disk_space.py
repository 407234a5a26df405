"""Free space on the disk of the pictures. Nothing is deleted by itself, so somebody must be told in time."""

import shutil
from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3
# Room for about a thousand pictures.
LOW = 2 * GIB
ADVICE = "Delete pictures, choose another generation.output_dir, or let queue.keep_gb delete the oldest."


@dataclass(frozen=True)
class DiskSpace:
    """Bytes of a disk."""

    total: int
    free: int

    @property
    def warning(self) -> str | None:
        """What to tell people when the disk gets short; None while it is not."""
        if self.free >= LOW:
            return None
        return f"The disk of the pictures has only {self.free / GIB:.1f} GiB left. {ADVICE}"


def measure_disk(folder: Path) -> DiskSpace | None:
    """Measure the disk of a folder that may not exist yet. None if that is not possible."""
    path = folder.absolute()
    for place in (path, *path.parents):
        try:
            usage = shutil.disk_usage(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return DiskSpace(total=usage.total, free=usage.free)
    return None
