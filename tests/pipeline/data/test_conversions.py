"""Every kind of image becomes the 8-bit RGB that a person would expect, or is refused by name."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.data.parquet import parquet_folder
from pipeline.data.photo_decoding import FORMATS, SUFFIXES, UndecodableError, decode, identified
from tests.pipeline.data.photographs import photograph
from tests.pipeline.data.test_parquet import write

GREY16 = np.arange(0, 65_536, 256, dtype=np.uint16).reshape(16, 16) + np.uint16(200)
EXPECTED16 = np.rint(GREY16 / 257).astype(np.uint8)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    sink = BytesIO()
    image.save(sink, form, **options)  # type: ignore[arg-type]
    return sink.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(decode(content))


def png(values: np.ndarray, bits: int, colour: int, transparent: bytes = b"") -> bytes:
    """A PNG chunk by chunk: Pillow writes neither 16-bit colour nor a transparent 16-bit grey."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in values)
    extra = chunk(b"tRNS", transparent) if transparent else b""
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bit_grey_is_scaled_by_its_range(form: str) -> None:
    found = pixels(encoded(Image.fromarray(GREY16), form))
    assert np.array_equal(found, EXPECTED16[..., None].repeat(3, axis=2))


def test_12_bits_of_a_tiff_are_scaled_by_12_bits() -> None:
    """Two values of 12 bits in three bytes, as scanners and cameras write them."""
    values = [0, 0xFFF, 0x800, 0x7FF]
    packed = b"".join(
        bytes([a >> 4, (a & 15) << 4 | b >> 8, b & 255])
        for a, b in zip(values[::2], values[1::2], strict=True)
    )
    entries = [(256, 4, 2), (257, 4, 2), (258, 3, 12), (259, 3, 1), (262, 3, 1),
               (273, 4, 8), (277, 3, 1), (278, 4, 2), (279, 4, len(packed))]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    start = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    content = start + packed + directory + struct.pack("<I", 0)
    assert pixels(content)[..., 0].tolist() == [[0, 255], [128, 127]]


def test_a_16_bit_tiff_in_which_0_is_white_is_refused() -> None:
    content = encoded(Image.fromarray(GREY16), "TIFF")
    black_is_zero = struct.pack("<HHII", 262, 3, 1, 1)
    assert black_is_zero in content
    white_is_zero = content.replace(black_is_zero, struct.pack("<HHII", 262, 3, 1, 0))
    with pytest.raises(UndecodableError, match="range is not known"):
        decode(white_is_zero)


def test_16_bit_colour_keeps_its_high_byte_as_before() -> None:
    colour = np.stack([GREY16, GREY16 // 2, GREY16 // 3], axis=-1)
    assert np.array_equal(pixels(png(colour, 16, 2)), (colour >> 8).astype(np.uint8))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_of_an_unknown_range_are_refused_by_name(kind: type) -> None:
    with pytest.raises(UndecodableError, match=r"mode [FI] in a TIFF, whose range is not known"):
        decode(encoded(Image.fromarray(GREY16.astype(kind)), "TIFF"))
    with pytest.raises(UndecodableError, match="16-bit grey with a transparent colour"):
        decode(png(GREY16, 16, 0, struct.pack(">H", 200)))


def half_transparent(mode: str) -> Image.Image:
    """Black with an alpha of 0, 51 and 255 in three columns."""
    image = Image.new("RGBA", (3, 2))
    for x, alpha in enumerate((0, 51, 255)):
        for y in range(2):
            image.putpixel((x, y), (0, 0, 0, alpha))
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "form"),
    [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("RGBA", "AVIF")],
)
def test_transparency_goes_over_white(mode: str, form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {"quality": 100} if form == "AVIF" else {}
    found = pixels(encoded(half_transparent(mode), form, **options))
    assert np.abs(found[0, :, 0].astype(int) - [255, 204, 0]).max() <= (2 if form == "AVIF" else 0)


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_goes_over_white(form: str) -> None:
    image = Image.new("P", (3, 2))
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    found = pixels(encoded(image, form, transparency=0))
    assert found[0].tolist() == [[255] * 3, [200, 0, 0], [255] * 3]
    # One alpha for each colour of the palette, which PNG alone has.
    if form == "PNG":
        assert pixels(encoded(image, form, transparency=bytes([204, 255])))[0, 0, 0] == 59


def test_a_transparent_grey_or_colour_goes_over_white() -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert pixels(png(grey, 8, 0, b"\0\4"))[1, :, 0].tolist() == [3, 255, 5]
    colour = np.stack([grey, grey, grey], axis=-1)
    assert pixels(png(colour, 8, 2, b"\0\4" * 3))[1, :, 2].tolist() == [3, 255, 5]


@pytest.mark.parametrize(
    ("mode", "form"),
    [
        ("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("L", "PNG"),
        ("P", "PNG"), ("1", "PNG"), ("RGB", "BMP"), ("RGB", "TIFF"), ("CMYK", "TIFF"), ("P", "GIF"),
    ],
)  # fmt: skip
def test_what_was_read_rightly_before_keeps_its_bytes(mode: str, form: str) -> None:
    content = photograph(7, (40, 30), mode, form)
    assert np.array_equal(pixels(content), np.asarray(Image.open(BytesIO(content)).convert("RGB")))


def test_opaque_pixels_keep_their_colours_to_the_bit() -> None:
    values = np.random.default_rng(0).integers(0, 256, (50, 50, 4), dtype=np.uint8)
    values[..., 3] = 255
    assert np.array_equal(pixels(encoded(Image.fromarray(values), "PNG")), values[..., :3])


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    for form in ("JPEG", "PNG", "WEBP"):
        content = encoded(Image.new("RGB", (40, 30)), form, exif=exif)
        assert Image.open(BytesIO(content)).getexif()[0x0112] == 6
        assert decode(content).size == (40, 30)


def test_of_an_animation_the_first_picture_is_read() -> None:
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("GIF", "WEBP", "PNG", "TIFF"):
        content = encoded(pictures[0], form, save_all=True, append_images=pictures[1:])
        red, _, blue = pixels(content)[4, 4]
        assert red > 240 and blue < 10, form


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_known_by_its_content_and_usual_names(form: str, tmp_path: Path) -> None:
    file = tmp_path / "no-suffix"
    file.write_bytes(photograph(3, (40, 30), form=form))
    assert identified(file) and decode(file.read_bytes()).size == (40, 30)
    usual = {name for name, known in Image.registered_extensions().items() if known == form}
    assert usual & set(SUFFIXES)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"<html>", b"BMW is a car\n" * 9, b"P1 notes\n", b"%PDF-1.4\n", b"\0" * 600,
     b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"ftyp" * 9],
)  # fmt: skip
def test_what_is_no_image_is_not_identified_as_one(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert not identified(tmp_path / "a.txt")


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_small_images_are_converted_in_the_same_place(mode: str, form: str, tmp_path: Path) -> None:
    content = photograph(4, (32, 32), mode, form)
    rows = [{"img": {"bytes": content, "path": None}, "label": 1}]
    write(tmp_path, "train.parquet", rows)
    write(tmp_path, "test.parquet", rows)
    found = parquet_folder(tmp_path, "mine").train.pixels[0]
    assert np.array_equal(found, pixels(content))
