"""Estimates of how long a job takes, from measured seconds per step and seconds for the rest of a picture."""

from dataclasses import dataclass

from mflux_api.request import GenerateRequest


@dataclass(frozen=True)
class Pace:
    """`step`: seconds per step. `rest`: seconds per picture for everything else."""

    step: float
    rest: float

    def picture(self, steps: int) -> float:
        return steps * self.step + self.rest


class Paces:
    """Measured paces, by model and size. Kept in memory, so that an estimate does not wait for the database."""

    def __init__(self, known: dict[tuple[str, int, int], Pace]) -> None:
        self._known = known

    def replace(self, known: dict[tuple[str, int, int], Pace]) -> None:
        self._known = known

    def set(self, model: str, width: int, height: int, pace: Pace) -> None:
        self._known[model, width, height] = pace

    def find(self, model: str, width: int, height: int) -> Pace | None:
        """Return the pace at this size, else that of the model's nearest size, scaled by pixels; None when unknown."""
        exact = self._known.get((model, width, height))
        if exact is not None:
            return exact
        area = width * height
        sizes = [(w * h, pace) for (name, w, h), pace in self._known.items() if name == model]
        if not sizes:
            return None
        nearest, pace = min(sizes, key=lambda size: abs(size[0] - area))
        return Pace(pace.step * area / nearest, pace.rest * area / nearest)

    def seconds(self, model: str, request: GenerateRequest) -> float | None:
        """Estimate the seconds of a whole job, without loading the model; None when unknown."""
        pace = self.find(model, request.width, request.height)
        return None if pace is None else len(request.seeds) * pace.picture(request.steps)
