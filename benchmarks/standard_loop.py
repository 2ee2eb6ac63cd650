"""The loop people usually write for CIFAR-10, as the reference that ours is measured against.

PIL images, torchvision transforms in DataLoader workers, a plain ResNet with stock batch norm,
fp32, NCHW, torch's SGD, loss and accuracy read at every step. It uses nothing of this project, on
purpose.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


@dataclass(frozen=True)
class Setting:
    """DataLoader workers, and threads of the main process."""

    workers: int
    threads: int

    def __str__(self) -> str:
        return f"{self.workers} DataLoader workers, {self.threads} threads"


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and, in a residual network, a parameter-free shortcut (option A)."""

    def __init__(self, in_planes: int, planes: int, stride: int, residual: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride, self.extra, self.residual = stride, planes - in_planes, residual

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.residual:
            out += self.shortcut(x)
        return F.relu(out)

    def shortcut(self, x: Tensor) -> Tensor:
        if not self.extra:
            return x
        # Option A as it is usually written: zeros on both sides of the channels.
        before = self.extra // 2
        return F.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.extra - before)
        )


class CifarResNet(nn.Module):
    """ResNet of 6n+2 layers for small images."""

    def __init__(self, depth: int = 20, num_classes: int = 10, residual: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        in_planes = 16
        # The paper's three stages for CIFAR, of n blocks each.
        for planes in (16, 32, 64):
            for number in range((depth - 2) // 6):
                stride = 2 if planes > 16 and number == 0 else 1
                blocks.append(BasicBlock(in_planes, planes, stride, residual))
                in_planes = planes
        self.layers = nn.Sequential(*blocks)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(F.relu(self.bn1(self.conv1(x))))
        return self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))


class PILImages(Dataset):
    """Images and labels in memory, transformed when they are asked for."""

    def __init__(
        self, images: Sequence[Image.Image], labels: Sequence[int], transform: transforms.Compose
    ) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def train_transform(side: int, pad: int, flip: bool) -> transforms.Compose:
    """Random crop, random flip where a mirrored image keeps its class, to tensor, normalise."""
    return transforms.Compose(
        [
            transforms.RandomCrop(side, padding=pad),
            *([transforms.RandomHorizontalFlip()] if flip else []),
            transforms.ToTensor(),
            transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ]
    )


class StandardLoop:
    """Training that can be advanced a step at a time: `next(loop.steps)` yields a batch's size."""

    def __init__(self, dataset: PILImages, model: nn.Module, batch_size: int, workers: int) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.criterion = nn.CrossEntropyLoss()
        # The paper's numbers. The step is torch's own.
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4
        )
        self.loader = DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
        )
        self.steps = self._train()

    def _train(self) -> Iterator[int]:
        self.model.train()
        # Epoch after epoch: the benchmark takes as many steps as it needs.
        while True:
            running_loss, correct, total = 0.0, 0, 0
            for inputs, targets in self.loader:
                # From here on as in every tutorial.
                inputs = inputs.to(self.device, non_blocking=True)
                targets = targets.to(self.device, non_blocking=True)
                self.optimizer.zero_grad()
                outputs = self.model(inputs)
                loss = self.criterion(outputs, targets)
                loss.backward()
                self.optimizer.step()

                # People read both at every step, which is what makes the loop wait for its device.
                running_loss += loss.item()
                predicted = outputs.argmax(1)
                total += targets.size(0)
                correct += predicted.eq(targets).sum().item()
                yield targets.size(0)
