"""The layer list of each network (torch-free): Table 1, Figures 3 and 5 and Sec. 4.2, as data.

`layout(experiment)` is the one description of a network. `pipeline.training.step.networks` builds
its module from it, the counts of `params` and `multiply_adds` are read off it, and a test compares
the two. It draws nothing and trains nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.recipe.experiments import Experiment

IMAGENET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Table 1: blocks in conv2_x to conv5_x."""

BOTTLENECK_EXPANSION = 4

Padding = Literal["after", "both"]
"""Where option A has its zero channels: after the others as here, or half of them on both sides.

The networks of others may have it either way. They are the same but for the order of channels.
"""


@dataclass(frozen=True)
class Conv:
    """A convolution with padding of half its kernel, and its norm or else its own bias.

    Its map keeps its size but for the stride. `size_in` and `size_out` are the side of its square
    maps in pixels; `name` is torchvision's state-dict prefix.
    """

    name: str
    channels_in: int
    channels_out: int
    kernel: int
    stride: int
    size_in: int
    norm: bool

    @property
    def size_out(self) -> int:
        return -(-self.size_in // self.stride)

    @property
    def params(self) -> int:
        """Weights, and per output channel gamma and beta of its norm, or its bias."""
        return (
            self.kernel**2 * self.channels_in * self.channels_out
            + (2 if self.norm else 1) * self.channels_out
        )

    @property
    def multiply_adds(self) -> int:
        """What the paper calls FLOPs, for one image; norm and ReLU are not counted."""
        return self.kernel**2 * self.channels_in * self.channels_out * self.size_out**2


@dataclass(frozen=True)
class Linear:
    """The classifier after global average pooling: fully connected, with bias."""

    name: str
    channels_in: int
    channels_out: int

    @property
    def params(self) -> int:
        return (self.channels_in + 1) * self.channels_out

    @property
    def multiply_adds(self) -> int:
        return self.channels_in * self.channels_out


@dataclass(frozen=True)
class BlockLayout:
    """One building block (Figure 5): its convolutions in order, and what is added to their output.

    `shortcut` is `none` in plain networks; `identity`; `pad` (option A where the shape changes:
    `::2` and zero channels appended); or `projection` (a 1x1 convolution, the field of that name).
    """

    name: str
    convs: tuple[Conv, ...]
    shortcut: Literal["none", "identity", "pad", "projection"]
    projection: Conv | None = None

    @property
    def stride(self) -> int:
        return self.convs[0].size_in // self.convs[-1].size_out

    @property
    def layers(self) -> tuple[Conv, ...]:
        return self.convs if self.projection is None else (*self.convs, self.projection)


@dataclass(frozen=True)
class NetworkLayout:
    """Stem, 3x3/2 max pool (ImageNet only), blocks by stage, global average pool, classifier."""

    stem: Conv
    max_pool: bool
    stages: tuple[tuple[BlockLayout, ...], ...]
    classifier: Linear

    @property
    def blocks(self) -> tuple[BlockLayout, ...]:
        return tuple(block for stage in self.stages for block in stage)

    def __iter__(self) -> Iterator[Conv | Linear]:
        """Every weighted layer, in order of computation."""
        yield self.stem
        for block in self.blocks:
            # A projection runs beside the block's own layers; it is listed after them.
            yield from block.layers
        yield self.classifier

    @property
    def depth(self) -> int:
        """Weighted layers on the main path: the number in the network's name."""
        # The stem and the classifier, and no projection: they are not on the main path.
        return 2 + sum(len(block.convs) for block in self.blocks)

    @property
    def params(self) -> int:
        """Learned parameters, including batch norm's gamma and beta."""
        return sum(layer.params for layer in self)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one image (the paper's "FLOPs"): convolutions and the classifier."""
        return sum(layer.multiply_adds for layer in self)


def response_layers(plan: NetworkLayout) -> tuple[str, ...]:
    """The layers of Figure 7: every 3x3 convolution, in order of computation.

    Those are 6n+1 of a CIFAR network. Projections are left out because they are 1x1; one of another
    kernel would have to be left out by name, as `main_path` does.
    """
    return tuple(layer.name for layer in plan if isinstance(layer, Conv) and layer.kernel == 3)


def main_path(plan: NetworkLayout) -> tuple[str, ...]:
    """Every convolution of the main path, in order of computation: all but projection shortcuts."""
    projections = {block.projection.name for block in plan.blocks if block.projection}
    return tuple(
        layer.name for layer in plan if isinstance(layer, Conv) and layer.name not in projections
    )


def layout(
    experiment: Experiment, image_size: int | None = None, classes: int | None = None
) -> NetworkLayout:
    """The layers of a row's network for square images of `image_size` pixels (32 or 224).

    Another size or number of classes fits other datasets.

    Raises:
        ValueError: the paper has no network of this family, block and depth.
    """
    cifar = experiment.family == "cifar"
    norm = experiment.norm == "batch"
    size = image_size or (32 if cifar else 224)

    # The stem: one 3x3 convolution on CIFAR (Sec. 4.2); 7x7/2 and a 3x3/2 pool on ImageNet (Table
    # 1), whose padding of 1 rounds an odd size up.
    stem = (
        Conv("conv1", 3, 16, 3, 1, size, norm) if cifar else Conv("conv1", 3, 64, 7, 2, size, norm)
    )
    size = stem.size_out if cifar else -(-stem.size_out // 2)

    # The stages: each but the first halves the map and doubles the channels in its first block, so
    # that every layer costs about the same (Sec. 3.3).
    channels = stem.channels_out
    stages = []
    for index, count in enumerate(blocks_per_stage(experiment)):
        stage = []
        for position in range(count):
            stride = 2 if index and not position else 1
            name = f"layer{index + 1}.{position}"
            block = _block(experiment, name, channels, stem.channels_out << index, stride, size)
            channels, size = block.convs[-1].channels_out, block.convs[-1].size_out
            stage.append(block)
        stages.append(tuple(stage))
    classifier = Linear("fc", channels, classes or (10 if cifar else 1000))
    return NetworkLayout(stem, not cifar, tuple(stages), classifier)


def blocks_per_stage(experiment: Experiment) -> tuple[int, ...]:
    """How many blocks each stage has: as in Table 1, or a third of 6n+2 layers each on CIFAR.

    Raises:
        ValueError: the depth does not exist in this family.
    """
    if experiment.family == "imagenet":
        convs = 2 if experiment.block == "basic" else 3
        counts = IMAGENET_BLOCKS.get(experiment.depth)
        # The table has 34 layers of basic blocks alone: the block must fit the depth. A plain
        # network of 50 layers has bottlenecks too (footnote 4).
        if counts is None or 2 + convs * sum(counts) != experiment.depth:
            raise ValueError(
                f"depth {experiment.depth} with {experiment.block} blocks is not in Table 1"
            )
        return counts
    convs = 2 if experiment.block == "basic" else 3
    count, rest = divmod(experiment.depth - 2, 3 * convs)
    if rest or count < 1:
        raise ValueError(
            f"depth must be {3 * convs}n+2 with {experiment.block} blocks, not {experiment.depth}"
        )
    return (count, count, count)


def _block(
    experiment: Experiment, name: str, channels: int, width: int, stride: int, size: int
) -> BlockLayout:
    norm = experiment.norm == "batch"
    if experiment.block == "basic":
        shapes = [(channels, width, 3, stride), (width, width, 3, 1)]
    else:
        # The paper halves the map in the first 1x1; "v1.5" implementations do it in the 3x3.
        first, second = (stride, 1) if experiment.bottleneck_stride == "1x1" else (1, stride)
        out = width * BOTTLENECK_EXPANSION
        shapes = [(channels, width, 1, first), (width, width, 3, second), (width, out, 1, 1)]
    convs: list[Conv] = []
    for number, (inputs, outputs, kernel, step) in enumerate(shapes, 1):
        side = convs[-1].size_out if convs else size
        convs.append(Conv(f"{name}.conv{number}", inputs, outputs, kernel, step, side, norm))
    out = convs[-1].channels_out
    # Where the shape changes, identity cannot be added: A pads, B projects; C projects everywhere.
    changes = stride != 1 or channels != out
    option = experiment.shortcut
    if option == "none":
        return BlockLayout(name, tuple(convs), "none")
    if option == "C" or (option == "B" and changes):
        projection = Conv(f"{name}.downsample.0", channels, out, 1, stride, size, norm)
        return BlockLayout(name, tuple(convs), "projection", projection)
    return BlockLayout(name, tuple(convs), "pad" if changes else "identity")
