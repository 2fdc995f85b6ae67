"""Images per second of training: torchvision's networks as usually trained, as best without other software, and ours.

    python benchmarks/train_throughput.py [NETWORK ...] [--rounds 5] [--seconds 8]

Steps forward, backward and of SGD with momentum, on images that are in memory:

ordinary    torchvision's network, float32, as PyTorch comes
plain       the same in bf16 (autocast) and channels-last, as PyTorch comes
lenext      `lenext bench train`, on by default what it has: augmentation and weights' average of the recipe included

LeNet is trained on Fashion-MNIST with shifts and flips, in ways that are usual there:

dataloader  torchvision's transforms on one PIL image at a time, a DataLoader with two workers, float32
memory      all images as a float32 tensor, shifted and flipped as whole batches, float32
lenext      the training step of lenext

Each way is a process of its own, as what it does to memory would help or harm the others. They take turns, each with
the machine to itself; figures are medians over the rounds, ratios are taken round by round. With names, only these are
run and their rows replaced in the results.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from results import RESULTS, write

# Images a step; torchvision's name where it is another
NETWORKS = {"resnet50": 32, "resnext50_32x4d": 32, "vgg16": 32, "alexnet_owt": 64}
TORCHVISION = {"alexnet_owt": "alexnet"}
LENET, LENET_BATCH = "lenet_relu", 128
WAYS = ("ordinary", "plain", "lenext")
LENET_WAYS = ("dataloader", "memory", "lenext")
WARM_UP = 2  # steps


def torchvision_way(network: str, *, plain: bool) -> Callable[[], int]:
    """A step, and how many images it takes."""
    import torch
    import torch.nn.functional as F
    import torchvision

    batch = NETWORKS[network]
    model = getattr(torchvision.models, TORCHVISION.get(network, network))()
    images, labels = torch.randn(batch, 3, 224, 224), torch.randint(0, 1000, (batch,))
    if plain:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step() -> int:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=plain):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return batch

    return step


def lenext_way(network: str, seconds: float) -> Callable[[], dict[str, float]]:
    from lenext.bench import bench_train

    def measure() -> dict[str, float]:
        measured = bench_train(network, batch_size=NETWORKS[network], repeats=1, seconds=seconds)
        assert measured.share_of_peak is not None
        assert measured.peak_macs_per_second is not None
        return {
            "images_per_second": measured.images_per_second,
            "share_of_peak": measured.share_of_peak,
            "peak_macs_per_second": measured.peak_macs_per_second,
        }

    return measure


def lenet_way(way: str) -> Callable[[], int]:
    import dataclasses

    import torch
    import torch.nn.functional as F
    from PIL import Image
    from torch import nn
    from torch.utils.data import DataLoader
    from torch.utils.data import Dataset as TorchDataset
    from torchvision.transforms import v2

    from lenext.allocator import keep_memory
    from lenext.classifier import ConvNet, pixel_statistics
    from lenext.data import prepare
    from lenext.models import build
    from lenext.spec import Augment, Data
    from lenext.training.loop import Trainer
    from lenext.training.precision import choose_device, choose_precision
    from lenext.training.recipes import RECIPES

    if way == "lenext":
        keep_memory()
    data = prepare(Data("fashion-mnist"))
    mean, std = pixel_statistics(data.train.images)
    if way == "lenext":
        network = build(LENET, classes=10, channels=1, size=28)
        recipe = dataclasses.replace(RECIPES[LENET], augment=Augment(shift=2, flip=True), batch_size=LENET_BATCH)
        model = ConvNet(network, data.classes, data.preprocess, mean=mean, std=std)
        trainer = Trainer(model, recipe, choose_precision("auto", choose_device()), batch_size=LENET_BATCH, seed=0)
        model.train()
        batches = trainer.loader(data.train).batches()

        def our_step() -> int:
            trainer.step(next(batches), 1e-9)
            return LENET_BATCH

        return our_step

    network = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip

    class PerSample(TorchDataset):
        """The usual data set: an image is decoded, transformed and made a tensor when it is asked for."""

        transform = v2.Compose([
            v2.RandomCrop(28, padding=2),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([float(mean[0]) / 255], [float(std[0]) / 255]),
        ])  # fmt: skip

        def __len__(self) -> int:
            return len(data.train)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return self.transform(Image.fromarray(data.train.images[index, ..., 0])), int(data.train.labels[index])

    def from_loader() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        loader = DataLoader(PerSample(), LENET_BATCH, shuffle=True, num_workers=2, persistent_workers=True)
        while True:
            yield from loader

    def from_memory() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        pixels = torch.from_numpy(data.train.images).permute(0, 3, 1, 2).float()
        images = F.pad((pixels - mean[0]) / std[0], (2, 2, 2, 2), value=float(-mean[0] / std[0]))
        labels = torch.from_numpy(data.train.labels)
        while True:
            for chosen in torch.randperm(len(images)).split(LENET_BATCH)[:-1]:
                down, across = torch.randint(0, 5, (2,)).tolist()
                shifted = images[chosen, :, down : down + 28, across : across + 28]
                flipped = torch.rand(len(chosen), 1, 1, 1) < 0.5
                yield torch.where(flipped, shifted.flip(3), shifted), labels[chosen]

    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    source = from_loader() if way == "dataloader" else from_memory()

    def usual_step() -> int:
        inputs, targets = next(source)
        loss = F.cross_entropy(network(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return len(inputs)

    return usual_step


def serve(network: str, way: str, seconds: float) -> None:
    """Measures once for every line that comes in, and answers in JSON."""
    if network == LENET:
        step = lenet_way(way)
    elif way == "lenext":
        measure = lenext_way(network, seconds)
        for _ in sys.stdin:
            print(json.dumps(measure()), flush=True)
        return
    else:
        step = torchvision_way(network, plain=way == "plain")
    for _ in sys.stdin:
        # What was prepared ahead while others were measured is not counted
        for _ in range(20 if network == LENET else WARM_UP):
            step()
        images, start = 0, time.perf_counter()
        while not images or time.perf_counter() - start < seconds:
            images += step()
        print(json.dumps({"images_per_second": images / (time.perf_counter() - start)}), flush=True)


def measure_network(network: str, rounds: int, seconds: float) -> dict[str, object]:
    ways = LENET_WAYS if network == LENET else WAYS
    workers = {
        way: subprocess.Popen(
            [sys.executable, __file__, network, "--serve", way, "--seconds", str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for way in ways
    }
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
            found[way].append(json.loads(worker.stdout.readline()))
            print(f"{network:16s} {way:10s} {found[way][-1]['images_per_second']:10,.2f} images/s", flush=True)
    for worker in workers.values():
        worker.communicate()
    rates = {way: [row["images_per_second"] for row in rows] for way, rows in found.items()}
    row: dict[str, object] = {
        "batch": LENET_BATCH if network == LENET else NETWORKS[network],
        "images_per_second": {way: round(statistics.median(values), 2) for way, values in rates.items()},
        "ratio": {
            way: round(statistics.median(a / b for a, b in zip(rates["lenext"], rates[way], strict=True)), 3)
            for way in ways[:2]
        },
        "all": {way: [round(value, 2) for value in values] for way, values in rates.items()},
    }
    for key in ("share_of_peak", "peak_macs_per_second"):
        if values := [one[key] for one in found["lenext"] if key in one]:
            row[key] = round(statistics.median(values), 4)
    print(network, row["ratio"], row.get("share_of_peak", ""), flush=True)
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=[*NETWORKS, LENET])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--serve", choices=[*WAYS, *LENET_WAYS])
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.networks[0], arguments.serve, arguments.seconds)
        sys.exit()
    path = RESULTS / "train_throughput.json"
    rows = json.loads(path.read_text())["networks"] if path.exists() else {}
    for chosen in arguments.networks:
        rows[chosen] = measure_network(chosen, arguments.rounds, arguments.seconds)
        write("train_throughput", {"networks": rows})
