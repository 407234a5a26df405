"""Noise levels: the flow-matching schedule of FLUX.2, shifted by picture size."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mflux_api.request import repaint_steps

Sigmas = NDArray[np.float32]


def empirical_mu(tokens: int, steps: int) -> float:
    """The shift for `tokens` image tokens and `steps` steps.

    Source: `compute_empirical_mu` of black-forest-labs/flux2 (sampling.py) and of diffusers' Flux2KleinPipeline.
    """
    slope_200, offset_200 = 0.00016927, 0.45666666
    if tokens > 4300:
        return slope_200 * tokens + offset_200
    mu_200 = slope_200 * tokens + offset_200
    mu_10 = 8.73809524e-05 * tokens + 1.89833333
    slope = (mu_200 - mu_10) / 190.0
    return slope * steps + mu_200 - 200.0 * slope


@dataclass(frozen=True)
class Schedule:
    """Euler steps of a rectified flow, as diffusers' FlowMatchEulerDiscreteScheduler takes them."""

    dynamic: bool
    shift: float
    shift_type: str
    terminal: float | None

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> "Schedule":
        """From a checkpoint's checked `scheduler/scheduler_config.json`."""
        return cls(
            dynamic=bool(config.get("use_dynamic_shifting", True)),
            shift=float(config.get("shift", 1.0)),  # type: ignore[arg-type]
            shift_type=str(config.get("time_shift_type", "exponential")),
            terminal=float(config["shift_terminal"]) if config.get("shift_terminal") else None,  # type: ignore[arg-type]
        )

    def full(self, tokens: int, steps: int) -> Sigmas:
        """`steps` noise levels from 1 down and the final 0: float32 (steps + 1,)."""
        times = np.linspace(1.0, 1 / steps, steps).astype(np.float32)
        return np.append(self._shifted(times, empirical_mu(tokens, steps)), np.float32(0))

    def partial(self, tokens: int, steps: int, strength: float) -> Sigmas:
        """The levels of a repaint with `strength` in (0, 1]: it starts at time `strength` instead of 1.

        About `steps * strength` steps are run, as in SD-WebUI, spread evenly from the exact start, so that every
        strength differs even with the four steps of a distilled model. At strength 1 these are the full ones.
        """
        count = repaint_steps(steps, strength)
        times = (strength * np.linspace(1.0, 1 / count, count)).astype(np.float32)
        return np.append(self._shifted(times, empirical_mu(tokens, steps)), np.float32(0))

    def truncated(self, tokens: int, steps: int, strength: float) -> Sigmas:
        """The last levels of the full schedule, as diffusers' inpainting takes them (`get_timesteps`)."""
        start = int(max(steps - min(steps * strength, steps), 0))
        return self.full(tokens, steps)[start:]

    def _shifted(self, times: Sigmas, mu: float) -> Sigmas:
        if not self.dynamic:
            sigmas = self.shift * times / (1 + (self.shift - 1) * times)
        elif self.shift_type == "exponential":
            sigmas = math.exp(mu) / (math.exp(mu) + (1 / times - 1))
        else:
            sigmas = mu / (mu + (1 / times - 1))
        return self._stretched(sigmas.astype(np.float32))

    def _stretched(self, sigmas: Sigmas) -> Sigmas:
        if self.terminal is None:
            return sigmas
        rest = 1 - sigmas
        stretched: Sigmas = (1 - rest / (rest[-1] / (1 - self.terminal))).astype(np.float32)
        return stretched
