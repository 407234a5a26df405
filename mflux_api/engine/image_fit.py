"""Fit the pictures of a request to the canvas of one pass, and fit the painted picture back to the requested size."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from mflux_api.ipc.messages import Picture
from mflux_api.pixels import fitting, masks
from mflux_api.request import GenerateRequest


@dataclass(frozen=True)
class ImageFit:
    """A request for the model, and how to finish its picture.

    `request`: the fitted request. The picture is cropped to `size` and, if there is a `box`, pasted back into `source`
    there. `mask`: mode L, as large as the source. `unchanged`: the picture to return as it is, if there is nothing to
    paint.
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
        # Use the decoder's array: `picture.image` is already blended with the source at the mask's edge, and blending
        # it again would be wrong.
        painted = Image.fromarray((picture.array * 255).round().astype(np.uint8))
        return masks.paste_back(fitting.crop_centre(painted, self.size), self.source, self.mask, self.box)


def fit_request(request: GenerateRequest) -> ImageFit:
    """Fit the request's source and mask, of any size, to the canvas."""
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
        # There is nothing to repaint, so return what a strength of 0 returns.
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
    """Fit only the box around the mask, enlarged to the size of the request."""
    size = request.requested_size
    box = masks.find_crop_region(mask, request.retouch.closeup or 0, size)
    assert box is not None
    part, part_mask = (fitting.resize_to_exact(image.crop(box), size) for image in (source, mask))
    return ImageFit(_pad_to_canvas(request, part, part_mask), size, source=source, mask=mask, box=box)


def _pad_to_canvas(request: GenerateRequest, source: Image.Image, mask: Image.Image | None) -> GenerateRequest:
    """Return the request with these pictures, padded from the requested size to the larger canvas that is painted."""
    canvas = (request.width, request.height)
    return replace(
        request,
        source=fitting.padded(source, canvas),
        mask=None if mask is None else fitting.padded(mask, canvas),
    )


def _pad_in_proportion(source: Image.Image, size: tuple[int, int], canvas: tuple[int, int]) -> Image.Image:
    """Pad the source with a border that has the same proportion to it as the canvas's border has to `size`."""
    width, height = (round(side * whole / part) for side, whole, part in zip(source.size, canvas, size, strict=True))
    return fitting.padded(source, (width, height))
