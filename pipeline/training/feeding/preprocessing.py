"""How a picture becomes what a finished network is tested on, as values that travel with weights.

A row's test view (Sec. 3.4 and 4.2) without the dataset that its means are of: a square of a
picture, an offset and a scale. `normaliser` and `image_batches` say where the two come from.
"""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any, NotRequired

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import TypedDict

from pipeline.data.datasets import Dataset, Images
from pipeline.data.photo_decoding import centre
from pipeline.data.photo_shards import Photos
from pipeline.recipe.experiments import MOST, Experiment
from pipeline.training.feeding.image_batches import normalisation, training_split
from pipeline.training.feeding.normaliser import Normaliser


class PreprocessingFacts(TypedDict):
    """`Preprocessing` in a file's metadata; `mean_image` is base64 of little-endian float32."""

    side: int
    shorter_side: int
    mean: list[float]
    scale: list[float]
    mean_image: NotRequired[str]


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """A network sees (pixel - offset) * scale of a square of `side` pixels in RGB, each 0 to 255.

    The offset is `mean_image` [side, side, 3] where the row subtracts one, else `mean` [3]; `mean`
    is the average of the mean image over places, and the offset of squares of another side. `scale`
    is [3]. All are float32.
    """

    side: int
    shorter_side: int
    """Of photographs: what the shorter side is resized to before the centre is cut out; else 0."""
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    mean_image: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, experiment: Experiment, dataset: Dataset | Photos) -> "Preprocessing":
        """What networks of a row are tested with that were trained on a dataset."""
        if isinstance(dataset, Photos):
            side, shorter = experiment.crop, experiment.test_side
            anywhere, there = (
                Normaliser.of(experiment, dataset, torch.device("cpu"), each) for each in (1, side)
            )
            mean, offset, scale = anywhere.offset[0, 0], there.offset, there.scale
        else:
            side, shorter = dataset.spec.side, 0
            offset, scale = normalisation(
                experiment.normalisation, training_split(experiment, dataset)
            )
            mean = offset.mean((0, 1))
        # The same at all places: a mean of each channel, taken as it is and not averaged again.
        if bool((offset == offset[0, 0]).all()):
            return cls(side, shorter, offset[0, 0].numpy(), scale.numpy())
        return cls(side, shorter, mean.numpy(), scale.numpy(), offset.numpy())

    @classmethod
    def without_dataset(cls, experiment: Experiment, side: int) -> "Preprocessing":
        """That of a row whose normalisation takes nothing from training images.

        Raises:
            ValueError: it takes a mean.
        """
        if experiment.normalisation not in ("none", "torchvision"):
            raise ValueError(
                f"normalisation={experiment.normalisation} takes a mean of the training images"
            )
        shorter = experiment.test_side if experiment.family == "imagenet" else 0
        black = Images(np.zeros((1, side, side, 3), np.uint8), np.zeros(1, np.uint8))
        offset, scale = normalisation(experiment.normalisation, black)
        return cls(side, shorter, offset[0, 0].numpy(), scale.numpy())

    def is_of_another_size(self, image: Image.Image) -> bool:
        """Whether a picture has to be resized where the images trained on had one size."""
        return not self.shorter_side and image.size != (self.side, self.side)

    def view(self, image: Image.Image) -> NDArray[np.uint8]:
        """The square [side, side, 3] of a picture in RGB; one of that size already stays as it is.

        The shorter side is resized (to `side` where nothing else is said), and the centre is taken.
        """
        if self.shorter_side or self.is_of_another_size(image):
            return centre(image.size, self.shorter_side or self.side, self.side).of(image)
        return np.asarray(image)

    def normaliser(self, side: int, device: torch.device) -> Normaliser:
        """The arithmetic for squares of `side` pixels, or with side 1 for pictures of any size."""
        image = self.mean_image if side == self.side else None
        offset = torch.tensor(self.mean if image is None else image, device=device)
        scale = torch.tensor(self.scale, device=device)
        return Normaliser(offset.expand(side, side, 3), scale, 255 * scale)

    def facts(self) -> PreprocessingFacts:
        """The same as JSON has it; every float32 comes back to the bit."""
        facts: dict[str, Any] = {
            "side": self.side,
            "shorter_side": self.shorter_side,
            "mean": self.mean.tolist(),
            "scale": self.scale.tolist(),
        }
        if self.mean_image is not None:
            facts["mean_image"] = b64encode(self.mean_image.astype("<f4").tobytes()).decode()
        return facts  # type: ignore[return-value]

    @classmethod
    def from_facts(cls, facts: PreprocessingFacts) -> "Preprocessing":
        """The reverse of `facts`.

        Raises:
            ValueError: they are of no picture.
        """
        side, shorter = facts["side"], facts["shorter_side"]
        if not 0 < side <= MOST["crop"] or not (shorter == 0 or side <= shorter <= MOST["crop"]):
            raise ValueError(f"a square of {side} pixels at shorter side {shorter}")
        mean, scale = (np.array(facts[name], dtype=np.float32) for name in ("mean", "scale"))
        image = None
        if "mean_image" in facts:
            content = b64decode(facts["mean_image"], validate=True)
            # A length that is no image's is refused by `reshape`.
            image = np.frombuffer(content, dtype="<f4").reshape(side, side, 3)
        numbers = [each for each in (mean, scale, image) if each is not None]
        if (
            mean.shape != (3,)
            or scale.shape != (3,)
            or not all(np.isfinite(each).all() for each in numbers)
        ):
            raise ValueError("a mean or a scale that is not three finite numbers")
        return cls(side, shorter, mean, scale, image)

    def sentences(self) -> list[str]:
        """The same in words, for people who prepare pictures elsewhere."""
        if self.shorter_side:
            square = (
                f"A picture's shorter side is resized to {self.shorter_side} pixels (bilinear, "
                f"antialiased), and its central {self.side}x{self.side} pixels are taken."
            )
        else:
            square = (
                f"A picture has {self.side}x{self.side} pixels. Of another one the shorter side is "
                "resized to that (bilinear, antialiased), and the centre is taken."
            )
        mean, scale = (", ".join(f"{x:.6g}" for x in each) for each in (self.mean, self.scale))
        offset = (
            f"mean = [{mean}]"
            if self.mean_image is None
            else f"the mean a picture [{self.side}, {self.side}, 3] that averages to [{mean}]"
        )
        return [
            square,
            f"The network sees (pixel - mean) * scale of RGB from 0 to 255, with {offset} and "
            f"scale = [{scale}].",
        ]
