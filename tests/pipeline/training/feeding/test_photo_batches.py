"""What training sees of photographs: the plain recipe's pixels, the same for any number of threads
or workers.
"""

from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from io import BytesIO
from itertools import islice
from math import floor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.decoders import Decoders
from pipeline.data.photo_decoding import (
    EIGENVALUES,
    EIGENVECTORS,
    centre,
    colour_shift,
    decode,
    resized,
    training_view,
)
from pipeline.data.photo_shards import Photos, open_photos
from pipeline.data.photo_sources import list_source
from pipeline.data.sampling import batch_at, raw_words
from pipeline.recipe.experiments import EXPERIMENTS
from pipeline.runs.run import Run
from pipeline.storage import Storage
from pipeline.training.feeding.feeds import training_feed
from pipeline.training.feeding.photo_batches import AHEAD, Normaliser, PhotoFeed
from pipeline.training.step.process_group import ProcessGroup, single_process
from tests.pipeline.data.photographs import as_parquet, ingested, photograph, pictures

CPU = torch.device("cpu")
ROW = EXPERIMENTS["resnet18"]
SMALL = replace(ROW, crop=32, scale=(32, 50), test_side=40, test_sides=(32, 48),
                global_batch_size=8, bn_group=4, statistics_images=8,
                iterations=30, lr_drops=(15, 23), eval_every=10)  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Photos:
    place = tmp_path_factory.mktemp("photos")
    storage = Storage(str(place / "storage"))
    return open_photos(storage, ingested(storage, as_parquet(place / "p", pictures()))["id"], None)


def plainly(content: bytes, words: np.ndarray, row=ROW) -> np.ndarray:
    """The recipe as one would write it down: resize the whole photograph, cut, mirror."""
    image = Image.open(BytesIO(content)).convert("RGB")
    scale, x, y, mirrored = (int(word) >> 32 for word in words)
    shorter = row.scale[0] + (scale * (row.scale[1] - row.scale[0] + 1) >> 32)
    width, height = (
        floor(Fraction(side * shorter, min(image.size)) + Fraction(1, 2)) for side in image.size
    )
    left, top = x * (width - row.crop + 1) >> 32, y * (height - row.crop + 1) >> 32
    whole = image.resize((width, height), Image.Resampling.BILINEAR)
    view = np.asarray(whole.crop((left, top, left + row.crop, top + row.crop)))
    return view[:, ::-1] if mirrored >> 31 else view


@pytest.mark.parametrize("size", [(500, 375), (90, 70), (64, 640), (224, 224), (301, 257)])
def test_a_training_view_is_a_crop_of_the_resized_photograph(size: tuple[int, int]) -> None:
    content = photograph(7, size)
    for words in raw_words(1, 0, "augmentation", 8):
        view, wanted = training_view(content, words, ROW), plainly(content, words)
        assert view.shape == (224, 224, 3)
        assert (
            np.abs(view.astype(int) - wanted).max() <= 2
        )  # Pillow keeps a box in single precision
        assert np.abs(view.astype(int) - wanted).mean() < 0.1


def test_real_photographs_look_as_plainly_resized_ones(real_photographs: Path) -> None:
    photographs = islice(list_source(real_photographs).parts[0].read(), 60)
    for found, words in zip(photographs, raw_words(0, 0, "augmentation", 60), strict=True):
        difference = np.abs(
            training_view(found.content, words, ROW).astype(int) - plainly(found.content, words)
        )
        assert (
            difference.max() <= 2 and difference.mean() < 0.3
        )  # upright ones: Pillow takes its passes in another order


def test_scales_places_and_mirror_images_are_drawn_evenly() -> None:
    ramp = np.tile(
        np.linspace(0, 255, 300).astype(np.uint8)[None, :, None], (256, 1, 3)
    )  # brighter to the right
    sink = BytesIO()
    Image.fromarray(ramp).save(sink, "PNG")
    experiment, rising, seen = replace(ROW, crop=224, scale=(256, 257)), 0, set()
    for words in raw_words(0, 0, "augmentation", 400):
        view = training_view(sink.getvalue(), words, experiment)
        rising += int(view[100, -1, 0]) > int(view[100, 0, 0])
        seen.add(int(view[100, :, 0].min()))
    assert 0.42 < rising / 400 < 0.58
    assert len(seen) > 50  # of 77 places across, in grey levels of 0.85 a pixel


def test_decoding_at_a_smaller_scale_is_another_recipe_and_close() -> None:
    content, words = photograph(7, (1600, 1200)), raw_words(0, 0, "augmentation", 1)[0]
    exact = training_view(content, words, ROW).astype(int)
    fast = training_view(content, words, replace(ROW, decoding="dct_scaled")).astype(int)
    assert 0 < np.abs(exact - fast).mean() < 3
    assert replace(ROW, decoding="dct_scaled").fingerprint != ROW.fingerprint


def test_resized_by_hand() -> None:
    assert resized((500, 375), 256) == (341, 256)
    assert resized((375, 500), 256) == (256, 341)
    assert resized((3, 2), 5) == (8, 5)  # 7.5 is rounded up
    assert resized((100, 100), 224) == (224, 224)
    window = centre((500, 375), 256, 224)
    assert (window.x, window.y) == (58, 16)


def test_the_colour_shift_by_hand() -> None:
    half = np.full((1, 4), 1 << 63, dtype=np.uint64)  # uniform 1/2: a normal draw of 0
    assert np.abs(colour_shift(half, 0.1)).max() < 1e-6
    sigma = int(0.8413447460685429 * 2**64)  # the uniform whose normal draw is 1
    words = np.array([[sigma, 1 << 63, 1 << 63, 0]], dtype=np.uint64)
    assert np.allclose(
        colour_shift(words, 0.1)[0], 0.1 * EIGENVALUES[0] * EIGENVECTORS[:, 0], atol=1e-6
    )
    many = colour_shift(raw_words(0, 0, "colour", 20_000), 0.1)
    wanted = 0.01 * EIGENVECTORS @ np.diag(EIGENVALUES**2) @ EIGENVECTORS.T
    assert np.allclose(np.cov(many.T), wanted, rtol=0.05, atol=1e-6)


def run_on(photos: Photos, **changes: object) -> Run:
    return Run(replace(SMALL, **changes), photos.id, photos.key, seed=3)


def test_a_batch_is_its_samples_views_normalised(photos: Photos) -> None:
    run = run_on(photos)
    with closing(training_feed(run, photos, single_process(), threads=2)) as feed:
        x, labels = feed.batch(5)
    batch = batch_at(3, len(photos.train), 5, 8, 0, 8)
    assert labels.tolist() == photos.train.labels[batch.ids].tolist()
    for number, (sample, epoch) in enumerate(zip(batch.ids, batch.epochs, strict=True)):
        words = raw_words(3, epoch, "augmentation", 12)[sample]
        shift = colour_shift(raw_words(3, epoch, "colour", 12)[sample][None], 0.1)[0]
        wanted = (
            plainly(photos.train.encoded(sample), words, SMALL) - photos.channel_mean
        ) / 255 + shift
        assert np.abs(x[number].permute(1, 2, 0).numpy() - wanted).max() < 2.01 / 255


def test_views_do_not_depend_on_threads_workers_or_the_way_there(photos: Photos) -> None:
    run, whole = run_on(photos), []
    with closing(training_feed(run, photos, single_process(), threads=1)) as feed:
        whole = [feed.batch(iteration)[0] for iteration in range(6)]
    with closing(training_feed(run, photos, single_process(), threads=5)) as feed:
        for iteration in (4, 0, 1, 1, 5, 2):  # as a resumed run and its signals may ask
            assert torch.equal(feed.batch(iteration)[0], whole[iteration])
        assert isinstance(feed, PhotoFeed) and len(feed.pending) == AHEAD + 1
    for rank in range(2):
        with closing(training_feed(run, photos, ProcessGroup(rank, 2, CPU), threads=2)) as feed:
            assert torch.equal(feed.batch(3)[0], whole[3][4 * rank : 4 * rank + 4])


def test_nothing_is_decoded_beyond_the_last_iteration(photos: Photos) -> None:
    with closing(training_feed(run_on(photos), photos, single_process(), threads=2)) as feed:
        feed.batch(29)
        assert isinstance(feed, PhotoFeed) and max(feed.pending) == 30
        assert (
            len(feed.batch(45)[0]) == 8
        )  # but what is asked for, as averaged statistics may, is there


def test_normalisations_are_values_of_the_row(photos: Photos) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)

    def seen(**changes: object) -> torch.Tensor:
        return Normaliser.of(replace(SMALL, **changes), photos, CPU, 32)(pixels).permute(0, 2, 3, 1)

    exact = torch.from_numpy(pixels).double()
    assert torch.allclose(seen(normalisation="none").double(), exact / 255, atol=1e-6)
    whitened = (exact - torch.from_numpy(photos.channel_mean)) / torch.from_numpy(
        photos.channel_std
    )
    assert torch.allclose(seen(normalisation="channel_mean_std").double(), whitened, atol=1e-4)
    theirs = (exact / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    assert torch.allclose(seen(normalisation="torchvision").double(), theirs.double(), atol=1e-4)
    full = np.zeros((1, 224, 224, 3), dtype=np.uint8)
    offset = Normaliser.of(ROW, photos, CPU, 224)(full).permute(0, 2, 3, 1)[0]
    assert np.allclose(offset.numpy(), -photos.mean(224) / 255, atol=1e-6)  # per pixel


@pytest.mark.parametrize("normalisation", ["torchvision", "channel_mean_std"])
def test_colour_is_shifted_before_the_deviation_is_divided_by(
    photos: Photos, normalisation: str
) -> None:
    # As fb.resnet.torch does: lighting on pixels in [0, 1], and then the mean and the deviation.
    mean, std = {
        "torchvision": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        "channel_mean_std": (photos.channel_mean / 255, photos.channel_std / 255),
    }[normalisation]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    shift = np.array([[0.03, -0.01, 0.02], [-0.02, 0.04, 0.0]], dtype=np.float32)
    expected = (pixels / 255 + shift[:, None, None, :] - np.array(mean)) / np.array(std)
    normalise = Normaliser.of(replace(SMALL, normalisation=normalisation), photos, CPU, 32)
    assert np.allclose(normalise(pixels, shift).permute(0, 2, 3, 1), expected, atol=1e-4)
    one_by_one = np.empty((2, 32, 32, 3), dtype=np.float32)
    for number in range(2):
        normalise.into(one_by_one[number], pixels[number], shift[number])
    assert np.array_equal(one_by_one, normalise(pixels, shift).permute(0, 2, 3, 1))


@pytest.mark.parametrize("normalisation", ["per_pixel_mean", "none"])
def test_the_papers_views_are_shifted_by_the_draws_as_they_are(
    photos: Photos, normalisation: str
) -> None:
    normalise = Normaliser.of(replace(SMALL, normalisation=normalisation), photos, CPU, 32)
    assert normalise.shift_scale.tolist() == [1.0, 1.0, 1.0]  # to the bit: rows keep their bytes


def test_a_photograph_that_went_bad_stops_training(photos: Photos) -> None:
    broken = replace(photos, train=replace(photos.train, offsets=photos.train.offsets + 10_000_000))
    with (
        closing(training_feed(run_on(photos), broken, single_process(), threads=2)) as feed,
        pytest.raises(OSError, match="shorter"),
    ):
        feed.batch(0)
    assert decode(photos.train.encoded(0)).mode == "RGB"


def test_batches_from_processes_are_those_from_threads_to_the_byte(photos: Photos) -> None:
    run = run_on(photos)
    feed = training_feed(run, photos, single_process(), threads=2)
    assert isinstance(feed, PhotoFeed)
    with closing(feed):
        assert not feed.decoders.in_processes
        expected = [feed.batch(iteration) for iteration in range(6)]
    for count in (1, 3, 5):
        decoders = Decoders(count, processes=True)
        other = PhotoFeed(run.experiment, photos, CPU, run.seed, feed.batch_of, 30, decoders)
        with closing(other):
            for iteration in (0, 1, 4, 2, 5, 3):
                views, labels = other.batch(iteration)
                assert torch.equal(views, expected[iteration][0])
                assert torch.equal(labels, expected[iteration][1])


def test_two_batches_at_most_are_on_their_way_to_a_gpu(photos: Photos) -> None:
    class Copied:
        waited_for = False

        def synchronize(self) -> None:
            self.waited_for = True

    with closing(training_feed(run_on(photos), photos, single_process(), threads=2)) as feed:
        assert isinstance(feed, PhotoFeed)
        oldest, newer = Copied(), Copied()
        feed.in_flight.launched.append(oldest)  # type: ignore[arg-type]
        feed.prepare(0)
        assert not oldest.waited_for
        feed.in_flight.launched.append(newer)  # type: ignore[arg-type]
        feed.prepare(1)
        assert oldest.waited_for and not newer.waited_for
