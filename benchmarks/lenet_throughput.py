"""Training throughput of LeNet on Fashion-MNIST with shift-and-flip augmentation: the usual PyTorch way against ours.

    python benchmarks/lenet_throughput.py

The usual way: torchvision transforms on one PIL image at a time, a DataLoader with two workers, float32. Ours: the
training step of lenext on whole batches. The same network, batch size and augmentation; interleaved in one process,
each start-up excluded; medians of the images per second, and of the ratio pair by pair.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2

from lenext.classifier import ConvNet, pixel_statistics
from lenext.data import Dataset, prepare
from lenext.models import build
from lenext.spec import Augment, Data
from lenext.training.loop import Trainer
from lenext.training.precision import choose_device, choose_precision
from lenext.training.recipes import RECIPES
from results import write

BATCH = 128
MODEL = "lenet_relu"


class PerSample(TorchDataset):
    """The usual data set: an image is decoded, transformed and made a tensor when it is asked for."""

    def __init__(self, data: Dataset, mean: float, std: float) -> None:
        self.images, self.labels = data.train.images[..., 0], data.train.labels
        self.transform = v2.Compose([
            v2.RandomCrop(28, padding=2),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([mean / 255], [std / 255]),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def usual(data: Dataset) -> Iterator[float]:
    """Images per second over each span of steps asked for."""
    mean, std = pixel_statistics(data.train.images)
    loader = DataLoader(
        PerSample(data, float(mean[0]), float(std[0])), BATCH, shuffle=True, num_workers=2, persistent_workers=True
    )
    network = build(MODEL, classes=10, channels=1, size=28)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    loss_of = nn.CrossEntropyLoss()
    while True:
        batches = iter(loader)
        for _ in range(20):  # the workers' start and the first full queue are not counted
            next(batches)
        images, start = 0, time.perf_counter()
        for inputs, labels in batches:
            loss = loss_of(network(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            images += len(labels)
            if time.perf_counter() - start > SECONDS:
                break
        yield images / (time.perf_counter() - start)
        del batches


def ours(data: Dataset) -> Iterator[float]:
    mean, std = pixel_statistics(data.train.images)
    recipe = dataclasses.replace(RECIPES[MODEL], augment=Augment(shift=2, flip=True), batch_size=BATCH)
    model = ConvNet(build(MODEL, classes=10, channels=1, size=28), data.classes, data.preprocess, mean=mean, std=std)
    trainer = Trainer(model, recipe, choose_precision("auto", choose_device()), batch_size=BATCH, seed=0)
    model.train()
    batches = trainer.loader(data.train).batches()
    while True:
        images, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            trainer.step(next(batches), 1e-6)
            images += BATCH
        yield images / (time.perf_counter() - start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0)
    arguments = parser.parse_args()
    SECONDS = arguments.seconds
    fashion = prepare(Data("fashion-mnist"))
    ways = {"usual": usual(fashion), "lenext": ours(fashion)}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(arguments.repeats + 1):
        for name, way in ways.items():
            rate = next(way)
            if repeat:  # the first round warms up
                rates[name].append(rate)
                print(f"{name:8s} {rate:10,.0f} images/s", flush=True)
    ratio = statistics.median(np.array(rates["lenext"]) / np.array(rates["usual"]))
    print(f"ratio {ratio:.2f}")
    write(
        "lenet_throughput",
        {
            "images_per_second": {name: round(statistics.median(values)) for name, values in rates.items()},
            "all": {name: [round(value) for value in values] for name, values in rates.items()},
            "ratio": round(ratio, 3),
        },
    )
