"""What a finished network takes a picture for, by its row's own test protocol (Sec. 3.4, 4.2).

The arithmetic is that of the tests: the single view of a small image, the central crop of a
photograph. Whose weights and means these are is the caller's.
"""

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from pipeline.recipe.experiments import Experiment
from pipeline.training.feeding.normaliser import stacked
from pipeline.training.feeding.preprocessing import Preprocessing
from pipeline.training.measuring.protocols import Scorer
from pipeline.training.step.networks import ResNet
from pipeline.training.step.precision import autocast
from pipeline.training.step.weights import load_weights

LIKELIEST = 5
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Likely:
    """A class by its number and name, and how probable a network takes it to be, from 0 to 1."""

    number: int
    name: str
    probability: float


class Predictor:
    """A network on the CPU with the classes it knows; pictures are looked at one by one."""

    def __init__(
        self,
        experiment: Experiment,
        weights: bytes,
        where: str,
        preprocessing: Preprocessing,
        class_names: tuple[str, ...],
    ) -> None:
        """Make the network of safetensors bytes; `where` names them in messages.

        Raises:
            InputError: they are for another architecture, or another number of classes.
        """
        self.experiment, self.preprocessing, self.class_names = (
            experiment,
            preprocessing,
            class_names,
        )
        self.network = ResNet(experiment, len(class_names)).eval()
        load_weights(self.network, experiment, len(class_names), weights, where)
        photographs = preprocessing.shorter_side > 0
        self.scorer = Scorer("center_crop", experiment, preprocessing, CPU) if photographs else None

    @torch.no_grad()
    def scores(self, image: Image.Image) -> Tensor:
        """Softmax scores [classes] float64 of a picture in RGB."""
        if self.scorer is not None:
            return self.scorer.scores(self.network, [self.scorer.views_of(image)])[0]
        square = stacked([self.preprocessing.view(image)], CPU)
        x = self.preprocessing.normaliser(self.preprocessing.side, CPU)(square)
        with autocast(self.experiment.precision, CPU):
            logits = self.network(x)
        return logits.float().softmax(1).double()[0]

    def likeliest(self, image: Image.Image) -> list[Likely]:
        """The five likeliest classes, or all of fewer; of equal ones the lower comes first."""
        scores, order = self.scores(image).sort(descending=True, stable=True)
        return [
            Likely(number, self.class_names[number], score)
            for score, number in zip(
                scores[:LIKELIEST].tolist(), order[:LIKELIEST].tolist(), strict=True
            )
        ]
