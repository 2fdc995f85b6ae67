"""Batches in turns, as many images at a time as fit into memory; memory that is kept."""

import copy
import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lenext.classifier import ConvNet, pixel_statistics
from lenext.ladder import resolve
from lenext.models import build
from lenext.run import Observer, run
from lenext.training.loop import Trainer
from lenext.training.memory import free_bytes, image_bytes, is_out_of_memory, most_that_fits, used_bytes
from lenext.training.precision import choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["lenet_relu", "softmax", "resnet20"])
@pytest.mark.parametrize("at_once", [96, 40, 7, 1])
def test_a_batch_in_turns_gives_the_gradients_of_the_batch(digits, name, at_once):
    torch.manual_seed(0)
    options = {"norm": "group"} if name == "resnet20" else {}  # each turn has batch statistics of its own
    network = build(name, classes=10, channels=1, size=28, **options)
    mean, std = pixel_statistics(digits.train.images)
    recipe = resolve("digits", name, {"recipe": {"clip_norm": 0.0}}).recipe
    gradients = []
    for images in (96, at_once):
        model = ConvNet(copy.deepcopy(network), digits.classes, digits.preprocess, mean=mean, std=std)
        trainer = Trainer(model, recipe, choose_precision("float32", CPU), batch_size=96, seed=0)
        trainer.compute_at_once(images)
        loss = trainer.step(next(trainer.loader(digits.train).batches()), 0.01)
        gradients.append([torch.tensor(loss), *(parameter.grad for parameter in model.parameters())])
    for whole, turns in zip(*gradients, strict=True):
        assert (turns - whole).norm() <= 5e-3 * whole.norm()  # an error of accumulation would be of the order of 1


def test_what_is_wanted_is_tried_and_taken_where_it_fits():
    tried = []
    assert most_that_fits(lambda n: tried.append(n) or n * 10, wanted=100, first=16, limit=1000) == 100
    assert tried == [16, 32, 64, 100]


@pytest.mark.parametrize(("limit", "expected"), [(700, 50), (399, 25), (180, 15), (41, 4)])
def test_no_more_than_fits_in_turns_of_equal_size(limit, expected):
    tried = []

    def step(images):
        tried.append(images)
        if images * 10 > limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes")
        return images * 10

    # 100 images in turns: of 64 at most there are two, of 50
    assert most_that_fits(step, wanted=100, first=64, limit=limit) == expected
    assert expected <= max(n for n in tried if n * 10 <= limit)


def test_what_would_not_fit_is_not_even_tried():
    tried = []
    most_that_fits(lambda n: tried.append(n) or n * 10, wanted=1000, first=8, limit=500)
    assert max(tried) * 10 <= 500


def test_an_error_of_another_kind_is_not_hidden():
    def step(images):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        most_that_fits(step, wanted=8, first=8, limit=100)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError())


def test_free_memory_is_a_part_of_the_machines():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal"):
            assert 0 < free_bytes(CPU) < 1024 * int(line.split()[1])


def test_where_memory_is_short_a_run_says_so_and_takes_turns(tmp_path, digits, monkeypatch):
    told = []

    class Told(Observer):
        def stage(self, text):
            told.append(text)

    # A step of 128 images of LeNet at 28 px keeps some 40 kB an image
    monkeypatch.setattr("lenext.training.memory.free_bytes", lambda device: 2_000_000)
    peaks = itertools.count(0, 1_000_000)  # as if each trial took a megabyte
    monkeypatch.setattr("lenext.training.memory.resident_peak", lambda device: next(peaks))
    spec = resolve("digits", "lenet_relu", {"epochs": 1})
    result = run(spec, out=tmp_path / "r", data=digits, observer=Told())
    turns = [text for text in told if "at a time" in text]
    assert len(turns) == 1, told
    assert turns[0].startswith("128 images a step, ")
    assert result.accuracy > 0.3
    assert json.loads((result.root / "summary.json").read_text())["state"] == "finished"


def test_freed_memory_is_kept():
    code = """
import resource, torch
from lenext.allocator import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.zeros(16 << 20)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
kept = keep_memory()
faults()
print(int(kept), before, faults())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    kept, before, after = map(int, done.stdout.split())
    if not kept:
        pytest.skip("the C library is not glibc")
    assert before > 100
    assert after < before / 10


def test_the_memory_of_a_small_network_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Sigmoid(), nn.Flatten(), nn.Linear(8 * 36, 10))
    used = [used_bytes(network, channels=3, size=8, images=n, dtype=torch.float32) for n in (1000, 2000)]
    # At the backward pass of the sigmoid: the bytes, the input, what it gave, the gradients of that and of its input
    per_image = 3 * 64 + 4 * 3 * 64 + 3 * 4 * 8 * 36
    assert (used[1] - used[0]) / 1000 == pytest.approx(per_image, rel=0.05)


def test_activations_take_half_in_bfloat16():
    network = build("resnet34", classes=10, channels=3, size=64)
    half, full = (image_bytes(network, channels=3, size=64, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    assert 1.6 < full / half < 3.2  # in bfloat16 ReLU is fused with batch norm, where there is a compiler


def test_foretold_memory_is_what_a_fresh_process_grows_by():
    code = """
import json
import numpy as np, torch
import lenext
from lenext.classifier import ConvNet
from lenext.data import Preprocess, Subset
from lenext.foresight import weight_bytes
from lenext.spec import Recipe
from lenext.allocator import keep_memory
from lenext.training.loop import Trainer
from lenext.training.memory import copies, resident_bytes, resident_peak, used_bytes
from lenext.training.precision import choose_precision

keep_memory()
recipe, precision = Recipe(lr=1e-6), choose_precision("auto", torch.device("cpu"))

def train(width, images):
    network = lenext.build("resnet20", classes=10, channels=3, size=32, width=width)
    model = ConvNet(network, tuple("0123456789"), Preprocess(size=32, channels=3),
                    mean=np.full(3, 127.5, np.float32), std=np.full(3, 64.0, np.float32))
    pixels = np.zeros((images, 32, 32, 3), np.uint8)
    subset = Subset(pixels, np.arange(images) % 10, [""] * images, [""] * images)
    trainer = Trainer(model, recipe, precision, batch_size=images, seed=0)
    model.train()
    batches = trainer.loader(subset).batches()
    for _ in range(2):
        trainer.step(next(batches), 1e-6)
    return network, len(trainer.shards.models)

train(0.25, 4)  # loads what is loaded at the first step
before = resident_peak()
network, parts = train(1.0, 256)
grown = resident_peak() - before
used = used_bytes(network, channels=3, size=32, images=256, dtype=precision.dtype, parts=parts)
print(resident_bytes(copies(recipe) * weight_bytes(network) + used, precision.dtype) / grown)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1 / 1.3 < float(done.stdout) < 1.3
