"""Photographs that are decoded and resized on the GPU (`--set decoding=gpu`: other pixels).

nvJPEG decodes baseline colour JPEG, by torchvision; the host decodes everything else with Pillow,
in full size. Crop, resize and mirror image are two small matrices, one for rows and one for
columns: Pillow's bilinear filter, which widens with the reduction. The draws are those of every
other feed.

On the CPU the same code runs with torchvision's CPU decoder, as in tests: views differ from those
of other feeds by 2 grey levels at most where Pillow decoded, and by 4 where torchvision did.
nvJPEG's own difference is not measured: *no GPU has run it yet.*
"""

import logging
from collections.abc import Iterable
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from pipeline.data.photo_decoding import GpuShares, Pixels, Window, decode, training_window
from pipeline.data.sampling import Batch
from pipeline.errors import InputError, first_line
from pipeline.training.feeding.photo_batches import PendingBatch, PhotoFeed

logger = logging.getLogger(__name__)


def require_gpu(device: torch.device) -> None:
    """Refuse `decoding=gpu` where no GPU would do it.

    Raises:
        InputError: the worker trains on a CPU, or torchvision is built without nvJPEG.
    """
    if device.type != "cuda":
        raise InputError(
            "decoding=gpu: this worker has no GPU; train with --device gpu, or without the setting"
        )
    check_decoder(device)


def check_decoder(device: torch.device) -> None:
    """Have a small photograph decoded on the device.

    Raises:
        InputError: it cannot be; says why.
    """
    sink = BytesIO()
    Image.new("RGB", (16, 16)).save(sink, "JPEG")
    content = torch.frombuffer(bytearray(sink.getvalue()), dtype=torch.uint8)
    try:
        decode_jpeg([content], mode=ImageReadMode.RGB, device=device)
    except RuntimeError as error:
        raise InputError(
            f"decoding=gpu: torchvision decodes no JPEG on {device} ({first_line(error)}); train "
            "without the setting"
        ) from None


class DeviceDecodedFeed(PhotoFeed):
    """A `PhotoFeed` whose decoders only read ahead: the device makes views of what they read."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.view = GpuShares()
        # Whatever the device is, views are made there.
        self.normalise_on_cpu = False

    def _items(self, batch: Batch) -> list[Any]:
        return [self.split.stored(sample) for sample in batch.ids]

    def _memory(self, shape: tuple[int, ...]) -> Tensor:
        # Of each photograph its encoded bytes are kept, in `parts`.
        return torch.empty(0)

    def _receive(self, pending: PendingBatch, start: int, squares: Iterable[Pixels]) -> None:
        for position, content in enumerate(squares, start):
            # Copied: a decoder process uses its memory again.
            pending.parts[position] = np.array(content)

    def _pixels(self, pending: PendingBatch) -> Tensor:
        """The squares [n, crop, crop, 3] on the device, in uint8."""
        device, batch = self.normalise.offset.device, pending.batch
        parts = [pending.parts[position] for position in range(len(batch.ids))]
        photos = decoded_on(device, parts)
        squares = []
        for photo, words in zip(photos, batch.random_words, strict=True):
            size = (photo.shape[1], photo.shape[0])
            window, mirrored = training_window(size, words, self.experiment)
            squares.append(resized_square(photo, window, mirrored))
        return torch.stack(squares)


def decoded_on(device: torch.device, parts: list[NDArray[np.uint8]]) -> list[Tensor]:
    """Photographs [height, width, 3] in uint8 on the device, of encoded bytes or of pixels."""
    encoded = [number for number, part in enumerate(parts) if part.ndim == 1]
    contents = [torch.from_numpy(parts[number]) for number in encoded]
    photos = {n: torch.from_numpy(part).to(device) for n, part in enumerate(parts) if part.ndim > 1}
    if contents:
        try:
            made = decode_jpeg(contents, mode=ImageReadMode.RGB, device=device)
            photos |= {n: each.permute(1, 2, 0) for n, each in zip(encoded, made, strict=True)}
        except RuntimeError as error:
            # One that its decoder cannot read is a whole batch's error. Pillow reads more, and says
            # which one is damaged.
            logger.warning("a batch is decoded by Pillow: %s", first_line(error))
            for number in encoded:
                pixels = np.array(decode(parts[number].tobytes()))
                photos[number] = torch.from_numpy(pixels).to(device)
    return [photos[number] for number in range(len(parts))]


def resized_square(photo: Tensor, window: Window, mirrored: bool) -> Tensor:
    """A window [side, side, 3] of a photograph [height, width, 3], uint8, resized as Pillow does.

    Pillow works in integers of 22 bits and rounds between rows and columns; this is float32 and
    rounds at the end.
    """
    height, width, _ = photo.shape
    rows = _filter(height, window.y, window.height, window.side, photo.device)
    columns = _filter(width, window.x, window.width, window.side, photo.device)
    if mirrored:
        columns = columns.flip(0)
    # Of the photograph only what the window reaches; [side, height] x [height, width x 3].
    across = torch.einsum("hwc,xw->hxc", photo.float(), columns)
    square = torch.einsum("hxc,yh->yxc", across, rows)
    return square.round_().clamp_(0, 255).to(torch.uint8)


def _filter(size: int, start: int, resized: int, side: int, device: torch.device) -> Tensor:
    """Weights [side, size] of the bilinear filter along one axis of `size` pixels.

    The axis is resized to `resized` pixels, of which `side` are looked at from `start` on.
    """
    scale = size / resized
    # Reduced, a pixel is a mean over as many as come to lie in it; enlarged, of two.
    support = max(scale, 1.0)
    centres = (torch.arange(side, device=device) + (start + 0.5)) * scale
    places = torch.arange(size, device=device) + 0.5
    weights = (1 - (places - centres[:, None]).abs() / support).clamp_(min=0)
    return weights / weights.sum(1, keepdim=True)
