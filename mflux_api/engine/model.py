"""Python API: load a model and paint with it."""

import random
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mflux_api.checkpoints.families import FAMILIES
from mflux_api.engine import memory
from mflux_api.engine.cache import LoadPlan, ModelCache
from mflux_api.engine.loaded_pipeline import LoadedPipeline
from mflux_api.engine.passes import paint
from mflux_api.errors import InvalidRequest, ModelNotFound, ModelUnsupported
from mflux_api.home import MODELS_DIR, find_home
from mflux_api.ipc.messages import PaintingEvent, Picture
from mflux_api.models.loras import LoraChoice, resolve_lora
from mflux_api.models.registry import ModelSpec, ResolvedModel, resolve_model
from mflux_api.pixels.decoding import show_mask, show_picture
from mflux_api.request import SIDE_STEP, SMALLEST_SIDE, GenerateRequest, LoraUse

if TYPE_CHECKING:
    from mflux_api.engine.flux2.pipeline import Pipeline

EMBEDDING_CACHE = 256 * 1024**2
DEFAULT_MODEL = "flux2-tiny"


class Model:
    """A model in memory. Load it and paint with it on the same thread."""

    def __init__(
        self, painter: LoadedPipeline, spec: ModelSpec, lora_dir: Path, lora_folders: Sequence[Path] | None
    ) -> None:
        self.painter = painter
        self.spec = spec
        self.lora_dir = lora_dir
        self.lora_folders = lora_folders

    @property
    def pipeline(self) -> "Pipeline":
        """The FLUX.2 pipeline of this model. Raises ModelUnsupported for a model of another family."""
        from mflux_api.engine.flux2.pipeline import Pipeline

        if not isinstance(self.painter, Pipeline):
            raise ModelUnsupported(f"{self.spec.name} is no FLUX.2.", model=self.spec.name)
        return self.painter

    @property
    def bits(self) -> int | None:
        """Bits of the quantized weights, or None."""
        return self.painter.bits

    def generate(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seeds: Sequence[int] | None = None,
        latents: NDArray[np.float32] | None = None,
        images: Sequence[Image.Image] = (),
        image: Image.Image | None = None,
        strength: float | None = None,
        mask: Image.Image | None = None,
        loras: Sequence[LoraChoice] = (),
        upsample: bool = False,
        on_event: Callable[[PaintingEvent], None] | None = None,
    ) -> list[Picture]:
        """Paint one picture for each seed. None means the model's default; for `seeds`, a random one.

        `width`, `height`: pixels, multiples of 16, at least 64. Default: those of `image`, of the first of `images`, or
        the model's. `guidance`: classifier-free guidance. Above 1, base models use `negative_prompt`. Distilled models
        always run at 1. FLUX.2-dev takes guidance as an input of the network and ignores a negative prompt.
        `images`: references for an edit, each at its own aspect ratio. `image`: the picture to repaint by `strength` (0
        keeps it, 1 ignores it; default 0.75). With a `mask`, only its white parts are repainted. `loras`: names or
        paths, "name:0.8" or ("name", 0.8). `latents`: initial noise, float32 (seeds, 128, H/16, W/16). For inpainting,
        these are the initial latents without any change. `upsample`: expand the prompt first with the model's own text
        encoder; the result is the `prompt` of each Picture. `on_event`: called with each UpsamplingProgress, Step,
        Preview and Picture. An exception that it raises stops the painting.

        Pictures are used as they look: in sRGB, on white where they are transparent; one that comes straight from
        `PIL.Image.open` is turned as its EXIF orientation says.

        Raises InvalidRequest, LoraNotFound, LoraInvalid and OutOfMemory; ModelUnsupported if this model cannot upsample
        the prompt.
        """
        can = self.spec.capabilities
        image = None if image is None else show_picture(image)
        images = [show_picture(each) for each in images]
        request = GenerateRequest(
            prompt=prompt,
            negative_prompt=negative_prompt if negative_prompt is not None else "",
            width=width if width is not None else self._choose_side(0, image, images),
            height=height if height is not None else self._choose_side(1, image, images),
            steps=steps if steps is not None else can.default_steps,
            guidance=guidance if guidance is not None else can.default_guidance,
            seeds=tuple(seeds) if seeds is not None else _random_seeds(1 if latents is None else len(latents)),
            references=tuple(images),
            source=image,
            strength=strength if strength is not None else 0.75,
            mask=None if mask is None else show_mask(mask),
            loras=self._resolve_loras(loras),
            upsample=upsample,
            latents=None if latents is None else np.asarray(latents, dtype=np.float32),
        )
        with memory.translate_allocation_errors():
            return list(_iter_pictures(paint(self.painter, request), on_event))

    def save(self, folder: str | Path) -> None:
        """Write the model with its current quantization to a folder that load_model and mflux can read.

        Raises InvalidRequest if the folder is not empty, ModelUnsupported for SeedVR2.
        """
        address = FAMILIES[self.spec.family].save
        if address is None:
            raise ModelUnsupported(f"{self.spec.name} enlarges pictures and does nothing else.", model=self.spec.name)
        resolve_name(address)(self.painter, Path(folder))

    def _resolve_loras(self, loras: Sequence[LoraChoice]) -> tuple[LoraUse, ...]:
        anywhere = self.lora_folders is None
        folders = [self.lora_dir] if self.lora_folders is None else self.lora_folders
        return tuple(resolve_lora(choice, folders, anywhere=anywhere) for choice in loras)

    def _choose_side(self, axis: int, image: Image.Image | None, images: Sequence[Image.Image]) -> int:
        first = image if image is not None else next(iter(images), None)
        if first is None:
            return self.spec.capabilities.native_side
        area = first.width * first.height
        scale = min(1.0, (1024 * 1024 / area) ** 0.5)
        return max(SMALLEST_SIDE, int(first.size[axis] * scale) // SIDE_STEP * SIDE_STEP)


def _random_seeds(count: int) -> tuple[int, ...]:
    return tuple(random.randrange(2**32) for _ in range(count))


def _iter_pictures(
    events: Generator[PaintingEvent, None, object], on_event: Callable[[PaintingEvent], None] | None
) -> Iterator[Picture]:
    with closing(events):
        for event in events:
            if on_event is not None:
                on_event(event)
            if isinstance(event, Picture):
                yield event


def load_model(
    model: str | Path | None = None,
    *,
    quantize: int | None = None,
    precision: str = "auto",
    low_ram: bool = False,
    models_dir: str | Path | None = None,
    lora_folders: Sequence[Path] | None = None,
    embedding_cache: int = EMBEDDING_CACHE,
    local_encoder: bool = True,
    full_model: bool = False,
    gguf_quant: str | None = None,
) -> Model:
    """Load a model by its name in the registry or from a folder (diffusers or mflux-save layout, or SeedVR2's files).

    `quantize`: 3, 4, 6 or 8 bits, applied while loading. Weights that are stored quantized do not change. `precision`:
    "auto" (bfloat16 on Metal and CUDA, float32 on CPU), "float32", "bfloat16", "float16". `low_ram`: unload the text
    encoder before denoising. FLUX.2-dev's networks are then never in memory together; this also happens without
    `low_ram` if they do not fit together. `models_dir`: the folder of the models, with adapters in `loras` inside it;
    None means `models` in the home (MFLUX_HOME, ~/.mflux-api, or in a checkout the working directory). `lora_folders`:
    the only folders that adapters may come from; None allows any. `embedding_cache`: size of the prompt embedding cache
    in bytes.

    Without a name, loads the default model and makes it the model of `generate_image`. With `gguf_quant` ("bf16", "q8",
    "q4") this is the first GGUF transformer under `models_dir` with that text in its name. `full_model`: load weights
    as they are stored, which is the default without `quantize`. `local_encoder`: no effect; text encoders are always
    local.

    Raises ModelNotFound, ModelNotDownloaded, ModelIncomplete, ModelCorrupt, ModelUnsupported, OutOfMemory,
    InvalidRequest.
    """
    if full_model and quantize is not None:
        raise InvalidRequest("full_model means weights as they are stored: leave quantize out.", field="quantize")
    memory.limit_cache(memory.CACHE_LIMIT)
    folder = Path(models_dir) if models_dir is not None else find_home() / MODELS_DIR
    chosen = model if model is not None else _choose_default_model(gguf_quant, folder)
    located = resolve_model(chosen, folder)
    cache = ModelCache(memory.default_budget())
    painter = cache.get(plan_load(located, quantize, precision, low_ram=low_ram, embedding_cache=embedding_cache))
    loaded = Model(painter, located.spec, folder / "loras", lora_folders)
    if model is None:
        _last_loaded["model"] = loaded
    return loaded


# The model that `generate_image` uses.
_last_loaded: dict[str, Model] = {}


def _choose_default_model(gguf_quant: str | None, models_dir: Path) -> str | Path:
    if gguf_quant is None:
        return DEFAULT_MODEL
    inside = (
        path
        for path in sorted(models_dir.rglob("*.gguf"))
        if path.parent.name != "text_encoder" and not path.name.startswith(".")
    )
    found = next((path for path in inside if gguf_quant.lower() in path.name.lower()), None)
    if found is None:
        raise ModelNotFound(
            f"No GGUF file under {models_dir} says {gguf_quant} in its name. Put one into the folder of its model.",
            path=str(models_dir),
        )
    return found


def plan_load(
    located: ResolvedModel, quantize: int | None, precision: str, *, low_ram: bool, embedding_cache: int
) -> LoadPlan:
    """Make the load plan of a resolved model. `quantize` overrides the bits in the registry."""
    spec = located.spec
    return LoadPlan(
        folder=located.folder,
        family=spec.family,
        facts=spec.facts,
        bits=quantize if quantize is not None else spec.quantize,
        precision=precision,
        low_ram=low_ram,
        embedding_cache=embedding_cache,
    )


def generate_image(  # noqa: PLR0917 - the documented signature
    prompt: str,
    seed: int | None = None,
    steps: int | None = None,
    width: int | None = None,
    height: int | None = None,
    local_encoder: bool = False,
    input_image: Image.Image | None = None,
    strength: float = 0.75,
) -> tuple[Image.Image, int, dict[str, float]]:
    """Paint one picture. Returns the image, the seed used, and timings in seconds.

    Uses the model that `load_model` loaded last without a name, else the default model. `local_encoder`: no effect;
    text encoders are always local. The timings are "encoding", "diffusion", "decoding" and "total". Raises the errors
    of `Model.generate`.
    """
    seeds = (seed,) if seed is not None else None
    model = _last_loaded.get("model") or load_model()
    picture = model.generate(
        prompt, seeds=seeds, steps=steps, width=width, height=height, image=input_image, strength=strength
    )[0]
    return picture.image, picture.seed, picture.timings
