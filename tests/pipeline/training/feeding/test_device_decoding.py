"""`decoding=gpu` by the same code on the CPU: torchvision's decoder stands in for nvJPEG."""

from contextlib import closing
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.decoders import Decoders
from pipeline.data.photo_decoding import (
    Window,
    decode,
    only_pillow_decodes,
    training_view,
    training_window,
)
from pipeline.data.photo_shards import Photos, open_photos
from pipeline.data.photo_sources import list_source
from pipeline.data.sampling import raw_words
from pipeline.errors import InputError
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.runs.run import Run
from pipeline.storage import Storage
from pipeline.training.feeding import device_decoding
from pipeline.training.feeding.device_decoding import (
    DeviceDecodedFeed,
    check_decoder,
    decoded_on,
    resized_square,
)
from pipeline.training.feeding.feeds import training_feed
from pipeline.training.feeding.photo_batches import PhotoFeed
from pipeline.training.step.process_group import single_process
from tests.pipeline.data.photographs import as_parquet, ingested, photograph, pictures

CPU = torch.device("cpu")
ROW = EXPERIMENTS["resnet18"]
SMALL = replace(ROW, crop=32, scale=(32, 50), test_side=40, global_batch_size=8, bn_group=4)


def encoded(form: str = "JPEG", mode: str = "RGB", size=(90, 70), **options: object) -> bytes:
    image = Image.open(BytesIO(photograph(4, size, form="PNG"))).convert(mode)
    sink = BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


TRAPS = {
    "PNG": encoded("PNG"),
    "grey": encoded(mode="L"),
    "CMYK": encoded(mode="CMYK"),
    "progressive": encoded(progressive=True),
    "RGB components": encoded(keep_rgb=True),
}


def part(content: bytes) -> np.ndarray:
    return (
        np.asarray(decode(content))
        if only_pillow_decodes(content)
        else np.frombuffer(content, dtype=np.uint8)
    )


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(int) - b.astype(int))


def view_on_device(content: bytes, words: np.ndarray) -> np.ndarray:
    (photo,) = decoded_on(CPU, [part(content)])
    window, mirrored = training_window((photo.shape[1], photo.shape[0]), words, ROW)
    return resized_square(photo, window, mirrored).numpy()


@pytest.mark.parametrize("name", TRAPS)
def test_what_is_a_trap_for_a_gpu_is_left_to_pillow(name: str) -> None:
    assert only_pillow_decodes(TRAPS[name])
    words = raw_words(1, 0, "augmentation", 1)[0]
    made, expected = view_on_device(TRAPS[name], words), training_view(TRAPS[name], words, ROW)
    assert difference(made, expected).max() <= 2


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_baseline_colour_is_decoded_on_the_device(subsampling: str) -> None:
    content = encoded(size=(301, 257), subsampling=subsampling, quality=80)
    assert not only_pillow_decodes(content)
    for words in raw_words(1, 0, "augmentation", 6):
        made, expected = view_on_device(content, words), training_view(content, words, ROW)
        assert made.shape == (224, 224, 3) and made.dtype == np.uint8
        assert difference(made, expected).max() <= 3 and difference(made, expected).mean() < 0.3


def test_damaged_bytes_are_left_to_pillow_which_says_why() -> None:
    whole = encoded()
    assert only_pillow_decodes(b"") and only_pillow_decodes(whole[:30])
    cut = whole[: len(whole) // 2]
    assert not only_pillow_decodes(cut)
    with pytest.raises(Exception, match="truncated"):
        decoded_on(CPU, [part(whole), part(cut)])


@pytest.mark.parametrize("size", [(500, 375), (90, 70), (64, 640)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_two_matrices_are_pillows_resize(size: tuple[int, int], mirrored: bool) -> None:
    image = decode(photograph(7, size))
    for shorter in (224, 256, 480):
        words = raw_words(shorter, 0, "augmentation", 1)[0]
        window, _ = training_window(image.size, words, replace(ROW, scale=(shorter, shorter)))
        made = resized_square(torch.from_numpy(np.array(image)), window, mirrored)
        apart = difference(made.numpy(), window.of(image, mirrored))
        assert apart.max() <= 2 and apart.mean() < 0.3


def test_a_resize_by_hand() -> None:
    """A step from 0 to 200 halved: each pixel is a mean of four with weights 1, 3, 3, 1."""
    step = np.zeros((8, 8, 3), dtype=np.uint8)
    step[:, 4:] = 200
    square = resized_square(torch.from_numpy(step), Window(4, 4, 0, 0, 4), False)
    assert square[1, :, 0].tolist() == [0, 25, 175, 200]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    place, images = tmp_path_factory.mktemp("photos"), pictures()
    images["train"][3:3] = [(f"{name}.JPEG", 0, trap) for name, trap in TRAPS.items()]
    storage = Storage(str(place / "storage"))
    return open_photos(storage, ingested(storage, as_parquet(place / "p", images))["id"], None)


@pytest.mark.parametrize("in_processes", [False, True])
def test_batches_are_pillows_to_a_few_grey_levels(photos: Photos, in_processes: bool) -> None:
    run = Run(replace(SMALL, decoding="gpu"), photos.id, photos.key, seed=3)
    plain = replace(run, experiment=SMALL)
    with closing(training_feed(plain, photos, single_process(), threads=2)) as feed:
        assert isinstance(feed, PhotoFeed)
        expected = [feed.batch(number) for number in range(5)]
        decoders = Decoders(2, in_processes)
        other = DeviceDecodedFeed(run.experiment, photos, CPU, 3, feed.batch_of, 30, decoders)
    with closing(other):
        for number in (0, 3, 1, 4, 2):
            views, labels = other.batch(number)
            assert torch.equal(labels, expected[number][1])
            apart = 255 * (views - expected[number][0]).abs()
            assert apart.max() < 3.01 and apart.mean() < 0.3


def test_real_photographs_are_pillows_to_a_few_grey_levels(real_photographs: Path) -> None:
    photographs = list(islice(list_source(real_photographs).parts[0].read(), 60))
    left = sum(only_pillow_decodes(found.content) for found in photographs)
    assert 0 < left < 15
    for found, words in zip(photographs, raw_words(0, 0, "augmentation", 60), strict=True):
        apart = difference(
            view_on_device(found.content, words), training_view(found.content, words, ROW)
        )
        assert apart.max() <= 4 and apart.mean() < 0.5


def test_a_device_that_decodes_nothing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    check_decoder(CPU)

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("decode_jpegs_cuda: torchvision not compiled with nvJPEG\nmore")

    monkeypatch.setattr(device_decoding, "decode_jpeg", fails)
    with pytest.raises(InputError, match=r"decodes no JPEG on cpu \(.*not compiled with nvJPEG\);"):
        check_decoder(CPU)


def test_it_is_a_value_of_the_row_and_refused_without_a_gpu(photos: Photos) -> None:
    experiment = replace(SMALL, decoding="gpu")
    assert experiment.fingerprint != SMALL.fingerprint
    run = Run(experiment, photos.id, photos.key, seed=3)
    with pytest.raises(InputError, match=r"^decoding=gpu: this worker has no GPU"):
        training_feed(run, photos, single_process(), threads=2)
