"""Every configuration of the paper, one frozen and typed row each (torch-free).

Sections 3.3, 3.4 and 4 of "Deep Residual Learning for Image Recognition" (arXiv 1512.03385v1). A
row is everything that decides what is trained: nothing about machines, storage or tracking belongs
here, and no other module branches on a row's name. Where the paper is silent the reading we chose
is a field of the row, and a line in docs/differences.md.
"""

from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from hashlib import blake2b
from json import dumps
from typing import Any, Literal

Family = Literal["cifar", "imagenet"]
Block = Literal["basic", "bottleneck"]
Shortcut = Literal["none", "A", "B", "C"]
"""Sec. 3.3 and 4.1: `none` is plain. Where the shape changes A pads with zeros, B projects (1x1).

C projects in every block. `pipeline.recipe.layers` says what each comes to.
"""
Norm = Literal["batch", "none"]
Initialisation = Literal["he_fan_in", "he_fan_out", "xavier", "gaussian_0.01"]
DecayScope = Literal["conv_fc", "all"]
SgdForm = Literal["caffe", "torch"]
Augmentation = Literal["none", "pad_crop_flip", "scale_crop_flip_colour"]
Normalisation = Literal["none", "per_pixel_mean", "channel_mean_std", "torchvision"]
Precision = Literal["fp32", "tf32", "bf16"]
Decoding = Literal["exact", "dct_scaled", "gpu"]
Protocol = Literal["center_crop", "ten_crop", "multi_scale"]


MOST = {
    "iterations": 10_000_000,
    "depth": 10_000,
    "global_batch_size": 1_000_000,
    "statistics_images": 100_000_000,
    "crop": 10_000,
    "scale": 10_000,
    "test_side": 10_000,
    "test_sides": 10_000,
}
"""The most that a field may be (of lists, each item): several times what anybody has trained."""
MOST_EVALUATIONS = 100_000
"""Of a run, as its history holds each of them."""

PAPERS_DATA: dict[Family, str] = {"cifar": "cifar10", "imagenet": "imagenet"}
"""The paper's data of a family, by the name under which they are prepared."""


def is_papers_data(dataset: str, family: Family) -> bool:
    """Whether a dataset has the name of the paper's, verified or not, however it is spelt."""
    return dataset.lower().replace("-", "") == PAPERS_DATA[family]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One configuration of the paper: a network, its recipe, and where in the paper it appears.

    Errors are percent, sizes are images or pixels, `lr_drops` and `eval_every` count iterations
    (SGD steps).

    `--set` takes every field here but `overrides.FIXED`, by its type. A new field needs a default
    that trains as before: it is left out of the fingerprint then, and stored runs stay what they
    are.
    """

    name: str
    artifacts: tuple[str, ...]
    """Where in the paper the row appears, such as `table_6`; `signals` is our own figure.

    Grids are made from it (`figure_1` is the grid `figure1`), and so is the list of rows behind
    each figure of a report. A row of `signals` alone may diverge.
    """

    # The network (Sec. 3.3, Table 1, Sec. 4.2).
    family: Family
    depth: int
    block: Block = "basic"
    shortcut: Shortcut
    norm: Norm = "batch"
    bottleneck_stride: Literal["1x1", "3x3"] = "1x1"
    """Where a bottleneck halves its map: the first 1x1 as the paper, or the 3x3 ("v1.5")."""
    initialisation: Initialisation = "he_fan_in"

    # The recipe (Sec. 3.4 for ImageNet, Sec. 4.2 for CIFAR-10).
    iterations: int
    global_batch_size: int
    bn_group: int
    """Images that share batch-norm statistics: the paper's batch on one GPU, on any hardware here.
    """
    bn_momentum: float = 0.1
    bn_eps: float = 1e-5
    lr: float = 0.1
    lr_drops: tuple[int, ...]
    """Iterations at which the learning rate is divided by ten."""
    warmup_lr: float | None = None
    """Learning rate until the running training error is below `warmup_until_err`; None for none."""
    warmup_until_err: float = 80.0
    weight_decay: float = 1e-4
    weight_decay_scope: DecayScope = "conv_fc"
    momentum: float = 0.9
    sgd: SgdForm = "caffe"
    augmentation: Augmentation
    normalisation: Normalisation = "per_pixel_mean"
    precision: Precision = "fp32"

    # Photographs: ImageNet's images, which come in any size (Sec. 3.4). Of no meaning to CIFAR
    # rows.
    crop: int = 224
    """Side of the square that training and the crops of the tests look at."""
    scale: tuple[int, ...] = (256, 480)
    """Training resizes the shorter side to a whole number drawn from these two, both included."""
    colour: float = 0.1
    """Standard deviation of the colour augmentation's three draws, one for each component.

    The principal components of RGB; 0 for no colour augmentation.
    """
    decoding: Decoding = "exact"
    """How JPEG is decoded: in full, or at the smallest DCT scale that training's resize allows.

    The scales of `dct_scaled` are 1/1, 1/2, 1/4 and 1/8. `gpu` decodes and resizes on the GPU.
    """
    test_side: int = 256
    """The shorter side from which `center_crop` and `ten_crop` are taken."""
    test_sides: tuple[int, ...] = (224, 256, 384, 480, 640)
    """The shorter sides of `multi_scale`."""
    protocols: tuple[Protocol, ...] = ()
    """What a finished network is tested by, besides the view that is tested throughout training."""
    statistics_images: int = 0
    """Augmented training images whose plain averages replace the running statistics; 0 for none.

    They are taken after training, for the final tests.
    """

    holdout: int = 0
    """Training images held out as `val`: none, or the paper's 45k/5k split with 5000."""
    eval_every: int

    def __post_init__(self) -> None:
        """Refuse a row that cannot be trained as it says.

        Raises:
            ValueError: one sentence naming the field.
        """
        # Counts first: everything below divides by them.
        for field in ("iterations", "global_batch_size", "bn_group", "eval_every"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, not {getattr(self, field)}")
        # Nothing that could be trained comes near: these would only take memory and time for ever.
        for field, most in MOST.items():
            value = getattr(self, field)
            if max(value if isinstance(value, tuple) else (value,), default=0) > most:
                raise ValueError(f"{field} must be at most {most:,}")
        if self.iterations // self.eval_every > MOST_EVALUATIONS:
            raise ValueError(
                f"eval_every {self.eval_every} makes {self.iterations // self.eval_every:,} "
                f"evaluations of {self.iterations:,} iterations, at most {MOST_EVALUATIONS:,}"
            )
        # Gradients are summed over the groups in one binary tree, which has a power of two leaves.
        groups, rest = divmod(self.global_batch_size, self.bn_group)
        if rest or groups & (groups - 1):
            raise ValueError(
                f"global_batch_size must be a power of two times bn_group ({self.bn_group}), not "
                f"{self.global_batch_size}"
            )
        # A drop behind the end would never happen: a deviation that nobody sees.
        drops_rise = all(
            a < b
            for a, b in zip((0, *self.lr_drops), (*self.lr_drops, self.iterations + 1), strict=True)
        )
        if not drops_rise:
            raise ValueError(
                f"lr_drops must rise within 1..{self.iterations}, not {list(self.lr_drops)}"
            )
        for field in ("lr", "warmup_until_err", "bn_eps"):
            if not getattr(self, field) > 0:
                raise ValueError(f"{field} must be above 0, not {getattr(self, field)}")
        for field in ("weight_decay", "momentum", "holdout"):
            if not getattr(self, field) >= 0:
                raise ValueError(f"{field} must not be negative, not {getattr(self, field)}")
        if self.warmup_lr is not None and not self.warmup_lr > 0:
            raise ValueError(f"warmup_lr must be above 0 or none, not {self.warmup_lr}")
        if not 0 < self.bn_momentum <= 1:
            raise ValueError(f"bn_momentum must be above 0 and at most 1, not {self.bn_momentum}")
        # Every crop has to lie inside its photograph, in training and in testing.
        low, high = self.scale if len(self.scale) == 2 else (0, 0)
        if not 0 < self.crop <= low <= high:
            raise ValueError(
                f"scale must be two sides that rise from crop ({self.crop}), not {list(self.scale)}"
            )
        if min((self.test_side, *self.test_sides), default=0) < self.crop:
            raise ValueError(f"test_side and test_sides must be at least crop ({self.crop})")
        # Statistics are averaged over whole batches.
        if self.colour < 0 or self.statistics_images % self.global_batch_size:
            raise ValueError(
                "colour must not be negative, and statistics_images a multiple of global_batch_size"
            )
        # Small images are padded and cropped, photographs resized: neither suits the other.
        of_other_family = "scale_crop_flip_colour" if self.family == "cifar" else "pad_crop_flip"
        if self.augmentation == of_other_family:
            raise ValueError(f"augmentation {of_other_family} is not for {self.family} rows")

    @property
    def dataset(self) -> str:
        """The paper's data for it, by the name under which it is prepared."""
        return PAPERS_DATA[self.family]

    @property
    def may_diverge(self) -> bool:
        """Whether the row shows what fails without care: an overflowing loss is a result too."""
        return self.artifacts == ("signals",)

    @property
    def groups(self) -> int:
        """Batch-norm groups in an iteration, which is also the most workers a run can use."""
        return self.global_batch_size // self.bn_group

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of everything that decides the result (so not `artifacts`).

        Fields at their defaults are left out: a field added later changes no fingerprint made
        before (and a default, once runs were made with it, may not change).
        """
        defaults = {field.name: field.default for field in fields(self)}
        content = {
            name: value
            for name, value in asdict(self).items()
            if name != "artifacts" and value != defaults[name]
        }
        # Rows whose colour augmentation was once 4.4 times too weak, as it was not divided by the
        # deviation that pixels are divided by: runs of then are other runs.
        if self._divides_colour:
            content["colour_divided"] = True
        return blake2b(dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()

    @property
    def _divides_colour(self) -> bool:
        """Whether it shifts colours and divides by a deviation afterwards."""
        shifts = self.augmentation == "scale_crop_flip_colour" and self.colour > 0
        return shifts and self.normalisation in ("channel_mean_std", "torchvision")

    def scaled_to(self, iterations: int) -> "Experiment":
        """The same schedule over other iterations: lr drops and evaluations move in proportion."""

        def scale(old: int) -> int:
            # Rounded half up in integers: the same on every machine.
            return max(1, (2 * old * iterations + self.iterations) // (2 * self.iterations))

        return replace(
            self,
            iterations=iterations,
            lr_drops=tuple(scale(drop) for drop in self.lr_drops),
            eval_every=scale(self.eval_every),
        )

    def deviations(self) -> dict[str, Any]:
        """Fields that differ from the paper's row of this name; empty means the paper's recipe."""
        # Not under a name of the paper's: nothing to compare with.
        paper = EXPERIMENTS.get(self.name)
        if paper is None:
            return {"name": self.name}
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != getattr(paper, field.name)
        }


def _cifar(name: str, *artifacts: str, **changes: Any) -> Experiment:
    """A row of Sec. 4.2: 64k iterations of 128 images on two GPUs, lr drops at 32k and 48k."""
    recipe: dict[str, Any] = dict(
        family="cifar",
        depth=int("".join(filter(str.isdigit, name))),
        shortcut="none" if name.startswith("plain") else "A",
        iterations=64_000,
        global_batch_size=128,
        bn_group=64,
        lr_drops=(32_000, 48_000),
        augmentation="pad_crop_flip",
        eval_every=1_000,
    )
    return Experiment(name=name, artifacts=artifacts, **(recipe | changes))


def _imagenet(
    name: str, depth: int, shortcut: Shortcut, *artifacts: str, **changes: Any
) -> Experiment:
    """A row of Sec. 3.4: 600k iterations of 256 images on eight GPUs, lr drops as in Figure 4."""
    recipe: dict[str, Any] = dict(
        family="imagenet",
        depth=depth,
        block="basic" if depth < 50 else "bottleneck",
        shortcut=shortcut,
        iterations=600_000,
        global_batch_size=256,
        bn_group=32,
        lr_drops=(150_000, 300_000),
        augmentation="scale_crop_flip_colour",
        protocols=("center_crop", "ten_crop", "multi_scale"),
        statistics_images=51_200,
        eval_every=5_000,
    )
    return Experiment(name=name, artifacts=artifacts, **(recipe | changes))


_STARTS: dict[str, dict[str, Any]] = {
    "-gaussian": dict(initialisation="gaussian_0.01"),
    "-xavier": dict(initialisation="xavier"),
    "-nobn": dict(norm="none"),
    "-nobn-gaussian": dict(norm="none", initialisation="gaussian_0.01"),
    "-nobn-xavier": dict(norm="none", initialisation="xavier"),
}
"""What deep networks started with before Sec. 1's cures: He's initialisation and batch norm."""

PHOTOGRAPHS = (
    "crop",
    "scale",
    "colour",
    "decoding",
    "test_side",
    "test_sides",
    "protocols",
    "statistics_images",
)
"""Fields that mean nothing to CIFAR rows."""

_THREEFOLD = dict(iterations=1_800_000, lr_drops=(450_000, 900_000))

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        # Sec. 4.2, CIFAR-10: plain networks of 6n+2 layers (Figures 1 and 6).
        _cifar("plain20", "figure_1", "figure_6", "figure_7"),
        _cifar("plain32", "figure_6"),
        _cifar("plain44", "figure_6"),
        _cifar("plain56", "figure_1", "figure_6", "figure_7", "signals"),
        _cifar("plain110", "figure_6"),
        # Residual networks with option A (Table 6); 110 layers and more warm up at 0.01.
        _cifar("resnet20", "table_6", "figure_6", "figure_7"),
        _cifar("resnet32", "table_6", "figure_6"),
        _cifar("resnet44", "table_6", "figure_6"),
        _cifar("resnet56", "table_6", "figure_6", "figure_7", "signals"),
        _cifar("resnet110", "table_6", "figure_6", "figure_7", warmup_lr=0.01),
        _cifar("resnet1202", "table_6", "figure_6", warmup_lr=0.01),
        # Footnote 5: it starts slowly without the warm-up, and ends alike.
        _cifar("resnet110-nowarmup", "footnote_5"),
        *(
            # Ours, for Sec. 1 and 4.1: how signals travel without what cured them.
            _cifar(f"{network}{start}", "signals", **changes)
            for network in ("plain56", "resnet56")
            for start, changes in _STARTS.items()
        ),
        # Sec. 4.1, ImageNet: Table 1's networks with option A in 18 and 34 layers (Table 2).
        _imagenet("plain18", 18, "none", "table_1", "table_2", "figure_4"),
        _imagenet("plain34", 34, "none", "table_1", "table_2", "table_3", "figure_3", "figure_4"),
        _imagenet("resnet18", 18, "A", "table_1", "table_2", "figure_4"),
        _imagenet("resnet34-a", 34, "A", "table_1", "table_2", "table_3", "figure_3", "figure_4"),
        # Table 3's other shortcuts, and the bottleneck networks with option B.
        _imagenet("resnet34-b", 34, "B", "table_3", "table_4"),
        _imagenet("resnet34-c", 34, "C", "table_3", "table_4"),
        _imagenet("resnet50", 50, "B", "table_1", "table_3", "table_4"),
        _imagenet("resnet101", 101, "B", "table_1", "table_3", "table_4"),
        _imagenet("resnet152", 152, "B", "table_1", "table_3", "table_4", "table_5"),
        # Footnotes 3 and 4: three times the iterations, and plain networks of bottleneck blocks.
        _imagenet("plain18-3x", 18, "none", "footnote_3", **_THREEFOLD),
        _imagenet("plain34-3x", 34, "none", "footnote_3", **_THREEFOLD),
        _imagenet("plain50", 50, "none", "footnote_4"),
        _imagenet("plain101", 101, "none", "footnote_4"),
    )
}
