"""Photographs from encoded bytes to the squares that a network looks at (Sec. 3.4), with Pillow.

Resizing is Pillow's bilinear filter, which widens with the reduction (no aliasing). Only what a
crop needs is resized: its box is handed to the resize, which gives what a resize of the whole
photograph and a crop give, to two grey levels. Torch-free.
"""

import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from struct import error as StructError
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.data.decoders import StoredPhoto
from pipeline.data.sampling import bounded
from pipeline.errors import first_line
from pipeline.recipe.experiments import Experiment, Protocol

FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF"]
"""What is decoded, as Pillow names it. The first two come first: they alone are loaded at once."""
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".avif",
)  # fmt: skip
"""How these are usually called: a file of such a name is an image, or a damaged one."""
BACKGROUND = "white"
"""What transparent images are laid over (our reading: pages that show them are white)."""
MEAN_SIDE = 224
MOST_PIXELS = 89_478_485
"""Of a photograph: 256 MiB in RGB, Pillow's own limit; each worker holds one at a time."""

Pixels = NDArray[np.uint8]
FILTER = Image.Resampling.BILINEAR
MIRRORED = Image.Transpose.FLIP_LEFT_RIGHT

EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
"""Principal components of ImageNet's RGB values in [0, 1], a column each, rows red, green, blue:
fb.resnet.torch's constants of "the standard color augmentation in [21]".
"""


BROKEN = (
    OSError, SyntaxError, ValueError, KeyError, IndexError, TypeError, OverflowError, EOFError,
    MemoryError, RuntimeError, StructError, ZlibError,
)  # fmt: skip
"""What Pillow raises of damaged or hostile bytes."""

# Pillow only warns of a photograph beyond its limit, and decodes it.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class UndecodableError(Exception):
    """Bytes that are no photograph; says why."""


def decode(content: bytes, at_least: tuple[int, int] | None = None) -> Image.Image:
    """A photograph in 8-bit RGB, as `in_rgb` converts it; the first picture of an animation.

    EXIF's orientation is ignored, as torchvision's loader ignores it.

    With `at_least` (width, height) a JPEG is decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 that
    is no smaller.

    Raises:
        UndecodableError: it is of none of `FORMATS`, is cut off, has no area to look at, more than
            `MOST_PIXELS`, or values of an unknown range.
    """
    try:
        image = opened(content)
        if at_least is not None and image.format == "JPEG" and image.mode == "RGB":
            # The decoder then skips high frequencies: faster, and not the same pixels, which is why
            # `decoding` is a field of the experiment.
            image.draft("RGB", at_least)
        image.load()
        image = in_rgb(image)
    except BROKEN as error:
        raise UndecodableError(first_line(error)) from error
    if min(image.size) < 2:
        raise UndecodableError(f"{image.width}x{image.height} pixels")
    return image


def in_rgb(image: Image.Image) -> Image.Image:
    """An image in 8-bit RGB: the one place where photographs and small images are converted.

    Grey, palette and CMYK images are Pillow's conversion. Transparency is laid over `BACKGROUND`.
    Grey of more than 8 bits is scaled by its format's range, never by its values.

    Raises:
        UndecodableError: values whose range the file does not tell (floating point, 32 bits).
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey_of_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        # Opaque pixels keep their colours to the bit, so an alpha of 255 everywhere changes none.
        over = Image.new("RGBA", image.size, BACKGROUND)
        image = Image.alpha_composite(over, image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey_of_8_bits(image: Image.Image) -> Image.Image:
    """A grey image whose values have more bits, scaled so that its format's white is 255."""
    if "transparency" in image.info:
        raise UndecodableError("16-bit grey with a transparent colour is not read")
    white = 65_535
    if image.format == "TIFF":
        # Pillow hands over the values as they are: of 12 bits, and where 0 is white, too.
        bits, photometric = image.tag_v2.get(258, (1,))[0], image.tag_v2.get(262)  # type: ignore[attr-defined]
        known, white = photometric == 1 and image.mode.startswith("I;16"), (1 << bits) - 1
    else:
        known = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM")
    if not known:
        raise UndecodableError(
            f"grey values of mode {image.mode} in a {image.format}, whose range is not known; "
            "convert it to 8 or 16 bits"
        )
    values = np.asarray(image).astype(np.uint32)
    scaled = np.minimum((values * 255 + white // 2) // white, 255)
    return Image.fromarray(scaled.astype(np.uint8))


def identified(file: Path) -> bool:
    """Whether a file begins as an image of `FORMATS` does, whatever its name; it is not decoded.

    Raises:
        OSError: it cannot be read.
    """
    if not file.is_file():
        return False
    with file.open("rb") as content:
        try:
            Image.open(content, formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return True
        except BROKEN:
            return False
    return True


def opened(content: bytes) -> Image.Image:
    """An image of which only the header was read.

    Raises:
        UndecodableError: it is of none of `FORMATS`, or has more than `MOST_PIXELS`.
    """
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise UndecodableError(f"none of {', '.join(FORMATS)}" if content else "empty") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UndecodableError(f"more than {MOST_PIXELS:,} pixels") from None
    except BROKEN as error:
        raise UndecodableError(first_line(error)) from error
    # By the header alone: the pixels of a file of kilobytes may take gigabytes.
    if image.width * image.height > MOST_PIXELS:
        raise UndecodableError(
            f"{image.width:,}x{image.height:,} pixels, of at most {MOST_PIXELS:,}"
        )
    return image


@dataclass(frozen=True)
class Window:
    """A square of `side` pixels at (`x`, `y`) of a photograph resized to `width` x `height`."""

    width: int
    height: int
    x: int
    y: int
    side: int

    def of(self, image: Image.Image, mirrored: bool = False) -> Pixels:
        """Its pixels [side, side, 3], or those of its mirror image."""
        # The box may lie between pixels, and is not rounded: that would shift the picture.
        across, down = image.width / self.width, image.height / self.height
        box = (
            self.x * across,
            self.y * down,
            (self.x + self.side) * across,
            (self.y + self.side) * down,
        )
        square = image.resize((self.side, self.side), FILTER, box)
        # Pillow mirrors faster than whoever would copy an array that runs backwards.
        return np.asarray(square.transpose(MIRRORED) if mirrored else square)


def resized(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height in the proportion of `size` whose shorter side is `shorter`.

    The longer one is rounded, halves up.
    """
    # In integers, so that no rounding of floating point decides where a crop lies.
    width, height = size
    if width <= height:
        return shorter, max(shorter, (2 * height * shorter + width) // (2 * width))
    return max(shorter, (2 * width * shorter + height) // (2 * height)), shorter


def centre(size: tuple[int, int], shorter: int, side: int) -> Window:
    """The central square of a photograph of `size` whose shorter side is resized to `shorter`."""
    width, height = resized(size, shorter)
    return Window(width, height, (width - side) // 2, (height - side) // 2, side)


def ten_windows(size: tuple[int, int], shorter: int, side: int) -> list[Window]:
    """The four corners and the centre; the other five of ten crops are their mirror images."""
    width, height = resized(size, shorter)
    right, bottom = width - side, height - side
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
    middle = (right // 2, bottom // 2)
    return [Window(width, height, x, y, side) for x, y in (*corners, middle)]


def whole(image: Image.Image, shorter: int) -> Pixels:
    """All of a photograph [height, width, 3], its shorter side resized to `shorter`."""
    return np.asarray(image.resize(resized(image.size, shorter), FILTER))


def training_view(content: bytes, words: NDArray[np.uint64], experiment: Experiment) -> Pixels:
    """What training sees of a photograph [crop, crop, 3], by its four random words.

    They draw the scale, the two coordinates of the crop, and whether it is mirrored.
    """
    shorter = _shorter(words, experiment)
    # `gpu` is decoded in full by whoever cannot be decoded there.
    scaled = experiment.decoding == "dct_scaled"
    image = decode(content, (shorter, shorter) if scaled else None)
    window, mirrored = training_window(image.size, words, experiment)
    return window.of(image, mirrored)


def training_window(
    size: tuple[int, int], words: NDArray[np.uint64], experiment: Experiment
) -> tuple[Window, bool]:
    """Which part of a photograph of `size` training sees, and whether mirrored, by its words."""
    if experiment.augmentation == "none":
        return centre(size, experiment.test_side, experiment.crop), False
    drawn = bounded(words, 1 << 32)
    width, height = resized(size, _shorter(words, experiment))
    x, y = (
        _pick(drawn[1], width - experiment.crop + 1),
        _pick(drawn[2], height - experiment.crop + 1),
    )
    return Window(width, height, x, y, experiment.crop), bool(_pick(drawn[3], 2))


def _shorter(words: NDArray[np.uint64], experiment: Experiment) -> int:
    """The shorter side that is drawn for a photograph."""
    low, high = experiment.scale
    # A word for each draw, whether it is used or not: a row without scales draws the same crops.
    return low + _pick(bounded(words[:1], 1 << 32)[0], high - low + 1)


def only_pillow_decodes(content: bytes) -> bool:
    """Whether an image is left to Pillow where a GPU decodes: all but baseline JPEG in colour.

    Those are PNG, and grey, CMYK and progressive JPEG, and JPEG whose three components are no
    YCbCr; and whatever is damaged before its first scan.
    """
    if content[:2] != b"\xff\xd8":
        return True
    at = 2
    while at + 10 <= len(content) and content[at] == 0xFF:
        kind, length = content[at + 1], int.from_bytes(content[at + 2 : at + 4], "big")
        # Adobe's segment with transform 0 says that the components are RGB, or CMYK.
        if (
            kind == 0xEE
            and content[at + 4 : at + 9] == b"Adobe"
            and content[at + 15 : at + 16]
            in (
                b"",
                b"\0",
            )
        ):
            return True
        # A frame: baseline is C0; all others up to CF are, but for tables (C4, C8, CC), too.
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            precision, components = content[at + 4], content[at + 9]
            return kind != 0xC0 or precision != 8 or components != 3
        at += 2 + length
    return True


@dataclass(frozen=True)
class GpuShares:
    """A stored photograph as far as the host takes it where a GPU decodes."""

    def __call__(self, photo: StoredPhoto) -> Pixels:
        """Encoded bytes [n], or pixels [height, width, 3] where only Pillow decodes it."""
        content = photo.read()
        if only_pillow_decodes(content):
            return np.asarray(decode(content))
        return np.frombuffer(content, dtype=np.uint8)


# What decoders are given to do: values that can be sent to another process.


@dataclass(frozen=True)
class TrainingViews:
    """What training sees of stored photographs, each with its random words."""

    experiment: Experiment

    def __call__(self, item: tuple[StoredPhoto, NDArray[np.uint64]]) -> Pixels:
        """The pixels [crop, crop, 3]."""
        photo, words = item
        return training_view(photo.read(), words, self.experiment)


@dataclass(frozen=True)
class ProtocolViews:
    """What a protocol looks at of stored photographs, at an experiment's sizes (Sec. 3.4)."""

    protocol: Protocol
    crop: int
    test_side: int
    test_sides: tuple[int, ...]

    @classmethod
    def of(cls, protocol: Protocol, experiment: Experiment) -> "ProtocolViews":
        """Those of an experiment; of equal ones, the views are the same."""
        return cls(protocol, experiment.crop, experiment.test_side, experiment.test_sides)

    def __call__(self, photo: StoredPhoto) -> list[Pixels]:
        """A photograph's views [height, width, 3]: crops, or all of it at each scale."""
        # No JPEG is decoded at a reduced size here, whatever the row's `decoding` is.
        return self.of_image(decode(photo.read()))

    def of_image(self, image: Image.Image) -> list[Pixels]:
        """The views of one that is decoded; each is cut from it and resized in one step."""
        match self.protocol:
            case "center_crop":
                return [centre(image.size, self.test_side, self.crop).of(image)]
            case "ten_crop":
                windows = ten_windows(image.size, self.test_side, self.crop)
                views = [window.of(image) for window in windows]
                # The mirror images of the four corners and the centre are the other five.
                return views + [view[:, ::-1] for view in views]
            case "multi_scale":
                return [whole(image, side) for side in self.test_sides]


@dataclass(frozen=True)
class ViewsOfEach:
    """The views of several protocols, cut from a photograph that is decoded once."""

    protocols: tuple[ProtocolViews, ...]

    def __call__(self, photo: StoredPhoto) -> list[list[Pixels]]:
        """Each protocol's views, in their order."""
        image = decode(photo.read())
        return [protocol.of_image(image) for protocol in self.protocols]


def _pick(word: int, bound: int) -> int:
    """A 32-bit word mapped to 0..bound-1, as `sampling.bounded` does."""
    return int(word) * bound >> 32


def colour_shift(words: NDArray[np.uint64], deviation: float) -> NDArray[np.float32]:
    """What the colour augmentation adds to each sample's pixels [n, 3], by its words [n, 4].

    Three normal draws along the principal components of RGB, each times its eigenvalue ("[21]":
    AlexNet), on a scale where white is 1.
    """
    # Slow to import, and CIFAR's rows do not need it.
    from scipy.special import ndtri

    # The inverse of the normal distribution and not a normal generator: one word gives one draw,
    # whatever was drawn before. Half a step keeps out 0 and 1, whose inverses are infinite.
    uniform = ((words[:, :3] >> np.uint64(11)).astype(np.float64) + 0.5) / (1 << 53)
    draws = deviation * ndtri(uniform)
    return ((draws * EIGENVALUES) @ EIGENVECTORS.T).astype(np.float32)


def for_the_mean(image: Image.Image) -> Pixels:
    """The centre of a training photograph at shorter side 256 [224, 224, 3], for the mean image."""
    return centre(image.size, 256, MEAN_SIDE).of(image)
