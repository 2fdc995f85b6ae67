"""The search that found resnet9: small residual networks of any layout on Fashion-MNIST, a few epochs each.

    python benchmarks/resnet9_search.py DESIGN EPOCHS [SETTING ...] [seed=N]
    python benchmarks/resnet9_search.py speed DESIGN [DESIGN ...]

A design is a word per part: c64 a 3×3 convolution to 64 channels with batch norm and ReLU, s64 one of stride 2, p max
pooling of 2×2, b64 a residual block of stride 2 to 64 channels, r a residual block, gm or ga the maximum or the mean
over what is left of the map, x8 a factor of 1/8 there. Settings are those of `lenext.spec.Recipe`, such as
augment.shift=2. Trained on 50,000 images by lenext's own Trainer and judged on 10,000 others of the training images,
without and with their mirror images (the mean of logits, and of probabilities); the test images take no part. Each run
adds its row to results/resnet9_search.json. Speeds are of training steps, interleaved, as ratios to the first design.
"""

import json
import statistics
import sys
import time
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from lenext.allocator import keep_memory
from lenext.classifier import ConvNet, pixel_statistics
from lenext.data import Dataset, prepare
from lenext.models.resnet import Basic
from lenext.nn import Layers, he
from lenext.spec import Data, Recipe, from_dict, merge, parse_sets, to_dict
from lenext.training.loop import Trainer
from lenext.training.precision import choose_device, choose_precision
from results import RESULTS, write

LAYERS = Layers(norm="batch")
SHARDS = 2
RECIPE = Recipe(lr=0.4, batch_size=256, warmup=0.25, label_smoothing=0.1, ema=0.05)


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def network(design: str) -> nn.Sequential:
    parts: list[nn.Module] = []
    channels = 1
    for word in design.split():
        kind, number = word[0], word[1:]
        if kind in "cs":
            stride = 1 if kind == "c" else 2
            conv = LAYERS.conv(channels, int(number), 3, stride=stride, bias=False)
            channels = int(number)
            parts.append(nn.Sequential(conv, LAYERS.normalise(channels), LAYERS.activate()))
        elif kind == "p":
            parts.append(nn.MaxPool2d(2))
        elif kind == "r":
            parts.append(Basic(channels, channels, channels, 1, residual=True, layers=LAYERS))
        elif kind == "b":
            after = int(number)
            block = Basic(channels, after, after, 2, residual=True, layers=LAYERS)
            block.downsample = nn.Sequential(nn.Conv2d(channels, after, 1, 2, bias=False), LAYERS.normalise(after))
            parts.append(block)
            channels = after
        elif kind == "g":
            parts.append(nn.AdaptiveMaxPool2d(1) if number == "m" else nn.AdaptiveAvgPool2d(1))
        elif kind == "x":
            parts.append(Scale(1 / float(number)))
    net = nn.Sequential(*parts, nn.Flatten(), nn.Linear(channels, 10))
    return he(net, "fan_out", head_std=0.01)


def trainer_of(design: str, recipe: Recipe, data: Dataset, seed: int) -> Trainer:
    torch.manual_seed(seed)
    mean, std = pixel_statistics(data.train.images)
    model = ConvNet(network(design), data.classes, data.preprocess, mean=mean, std=std)
    model.train()
    torch.set_num_threads(SHARDS)  # so many parts of a batch, each normalised apart, as on the machine that it is for
    trainer = Trainer(model, recipe, choose_precision("auto", choose_device()), batch_size=recipe.batch_size, seed=seed)
    torch.set_num_threads(1)
    return trainer


def judge(trainer: Trainer, part) -> dict[str, float]:
    labels = torch.from_numpy(part.labels)
    with trainer.precision.autocast():
        plain, mirrored = (
            torch.from_numpy(trainer.average.network.scores(np.ascontiguousarray(images)))
            for images in (part.images, part.images[:, :, ::-1])
        )
    trainer.model.train()

    def accuracy(scores: Tensor) -> float:
        return round((scores.argmax(1) == labels).float().mean().item(), 4)

    def loss(scores: Tensor) -> float:
        return round(nn.functional.cross_entropy(scores, labels).item(), 4)

    logits, probabilities = (plain + mirrored) / 2, (plain.softmax(1) + mirrored.softmax(1)) / 2
    return {
        "plain": accuracy(plain),
        "logits": accuracy(logits),
        "probabilities": accuracy(probabilities),
        "plain_loss": loss(plain),
        "logits_loss": loss(logits),
        "probabilities_loss": loss(probabilities.log()),
    }


def search(design: str, epochs: float, settings: list[str]) -> None:
    seed = next((int(word[5:]) for word in settings if word.startswith("seed=")), 0)
    sets = parse_sets([word for word in settings if not word.startswith("seed=")])
    recipe = from_dict(Recipe, merge(to_dict(RECIPE), sets))
    data = prepare(Data("fashion-mnist", val=1 / 6))
    trainer = trainer_of(design, recipe, data, seed)
    per_epoch = len(data.train) // recipe.batch_size
    total = round(epochs * per_epoch)
    start = time.perf_counter()
    for batch in islice(trainer.loader(data.train).batches(), total):
        if batch.position == 0:
            print(f"epoch {batch.epoch}, {time.perf_counter() - start:.0f} s", flush=True)
        trainer.step(batch, 1 / total)
    row = {
        "design": design,
        "epochs": epochs,
        "settings": settings,
        "macs": trainer.model.cost.macs,
        "params": trainer.model.cost.params,
        **judge(trainer, data.val),
        "seconds": round(time.perf_counter() - start),
        "processor_seconds": round(time.process_time()),
    }
    print(json.dumps(row), flush=True)
    path = RESULTS / "resnet9_search.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    write("resnet9_search", {"rows": [*rows, row]})


def speed(designs: list[str], repeats: int = 7) -> None:
    data = prepare(Data("fashion-mnist", val=1 / 6))
    trainers = [trainer_of(design, RECIPE, data, 0) for design in designs]
    batch = next(trainers[0].loader(data.train).batches())
    seconds = [[] for _ in designs]
    for repeat in range(repeats + 1):
        for trainer, taken in zip(trainers, seconds, strict=True):
            start = time.perf_counter()
            for _ in range(3):
                trainer.step(batch, 1e-6)
            if repeat:
                taken.append((time.perf_counter() - start) / 3)
    for design, trainer, taken in zip(designs, trainers, seconds, strict=True):
        ratio = statistics.median(np.array(taken) / np.array(seconds[0]))
        cost, rate = trainer.model.cost, RECIPE.batch_size / min(taken)
        print(
            f"{ratio:.3f} {cost.macs / 1e6:6.1f} M MACs {cost.params:9,} parameters {rate:7.0f} images/s "
            f"{3 * cost.macs * rate / 1e9:5.0f} G MACs/s  {design}",
            flush=True,
        )


if __name__ == "__main__":
    keep_memory()
    if sys.argv[1] == "speed":
        speed(sys.argv[2:])
    else:
        search(sys.argv[1], float(sys.argv[2]), sys.argv[3:])
