"""From what a client sends to what one pass of the model paints, and the painted picture to what is given back."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from mflux_api.ipc.messages import Picture
from mflux_api.pixels import fitting, masks
from mflux_api.request import GenerateRequest


@dataclass(frozen=True)
class ImageFit:
    """`request`: what the model gets. The picture is cut to `size`, and set back into `source` at `box`, if any.

    `mask`: mode L, as large as the source. `unchanged`: the picture to give back instead, where nothing is to be
    painted.
    """

    request: GenerateRequest
    size: tuple[int, int]
    source: Image.Image | None = None
    mask: Image.Image | None = None
    box: masks.Box | None = None
    unchanged: Image.Image | None = None

    def finish_picture(self, picture: Picture) -> Image.Image:
        if self.unchanged is not None:
            return self.unchanged
        if self.box is None or self.source is None or self.mask is None:
            return fitting.crop_centre(picture.image, self.size)
        # What the decoder made: its image has the source at the mask's edge already, and must not have it twice.
        painted = Image.fromarray((picture.array * 255).round().astype(np.uint8))
        return masks.paste_back(fitting.crop_centre(painted, self.size), self.source, self.mask, self.box)


def fit_request(request: GenerateRequest) -> ImageFit:
    """How the request's source and mask, of any size, become canvas and back."""
    if request.source is None:
        return ImageFit(request, request.requested_size)
    source = request.source.convert("RGB")
    if request.mask is None:
        return _fit_whole(request, source, None)
    retouch = request.retouch
    mask = masks.prepare_mask(
        fitting.resize_to_exact(masks.convert_to_mask(request.mask), source.size), retouch.invert, retouch.blur
    )
    if masks.is_blank(mask):
        # Nothing to repaint: what a strength of 0 gives back.
        frame = _fit_whole(replace(request, mask=None, strength=0.0), source, None)
        return frame if retouch.closeup is None else replace(frame, unchanged=source)
    return _fit_whole(request, source, mask) if retouch.closeup is None else _fit_crop_region(request, source, mask)


def _fit_whole(request: GenerateRequest, source: Image.Image, mask: Image.Image | None) -> ImageFit:
    size, mode = request.requested_size, request.retouch.resize
    if mask is None:
        if mode == "latent":
            grown = _pad_in_proportion(source, size, (request.width, request.height))
            return ImageFit(replace(request, source=grown, stretch=request.stretch or "bilinear"), size)
        return ImageFit(_pad_to_canvas(request, fitting.RESIZE_MODES[mode](source, size), None), size)
    fit = fitting.RESIZE_MODES[mode]
    return ImageFit(_pad_to_canvas(request, fit(source, size), fit(mask, size)), size)


def _fit_crop_region(request: GenerateRequest, source: Image.Image, mask: Image.Image) -> ImageFit:
    """Only the box around the mask, at the size of the request."""
    size = request.requested_size
    box = masks.find_crop_region(mask, request.retouch.closeup or 0, size)
    assert box is not None
    part, part_mask = (fitting.resize_to_exact(image.crop(box), size) for image in (source, mask))
    return ImageFit(_pad_to_canvas(request, part, part_mask), size, source=source, mask=mask, box=box)


def _pad_to_canvas(request: GenerateRequest, source: Image.Image, mask: Image.Image | None) -> GenerateRequest:
    """The request with these pictures, in the size the client asked for, on the larger canvas that is painted."""
    canvas = (request.width, request.height)
    return replace(
        request,
        source=fitting.padded(source, canvas),
        mask=None if mask is None else fitting.padded(mask, canvas),
    )


def _pad_in_proportion(source: Image.Image, size: tuple[int, int], canvas: tuple[int, int]) -> Image.Image:
    """With a border as large, beside the source, as that of the canvas is beside the size that will be cut from it."""
    width, height = (round(side * whole / part) for side, whole, part in zip(source.size, canvas, size, strict=True))
    return fitting.padded(source, (width, height))
