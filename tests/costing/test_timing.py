"""Times foretold from a profile of a machine whose laws we know."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torchvision
from torch import nn

from lenext.costing import Amount, count, operations
from lenext.costing.accelerators import ACCELERATORS, accelerator, accelerator_seconds
from lenext.costing.operations import Operation
from lenext.costing.profiling import VERSION, Profile, Sample, drawn
from lenext.costing.timing import Timing
from lenext.errors import UsageError

PEAK, BANDWIDTH = 200e9, 50e9


def law(one: Operation, images: int, threads: int, *, training: bool) -> float:
    """Seconds on a machine that we made up: slower for few channels and pixels, half as fast on one of two threads."""
    passes = (3 - one.first) if training else 1
    inner, outer = one.channels
    reach = 0.9
    for extent, half in ((inner, 3), (outer, 4), (images * one.pixels, 150)):
        reach *= extent / (extent + half)
    arithmetic = images * one.macs / (PEAK * reach * (1 if threads > 1 else 0.5)) if one.macs else 0.0
    moved = (images * (one.read + one.written) + one.weights) * 2 / (BANDWIDTH * (1 if threads > 1 else 0.6))
    return passes * (8e-6 + max(arithmetic, moved))


@pytest.fixture(scope="module")
def made_up() -> Profile:
    noise = np.random.default_rng(0)
    samples = []
    for one, images, *_ in drawn():
        for threads in (1, 2):
            for training in (False, True):
                seconds = law(one, images, threads, training=training) * math.exp(0.05 * noise.standard_normal())
                samples.append(Sample(one, images, "bf16", threads, training, seconds))
    peaks = {"bf16": PEAK, "float32": PEAK / 2}
    return Profile(VERSION, "made up", 2, "bf16", 1.0, peaks, BANDWIDTH, 1e8, (1e-6, 1e-10), tuple(samples))


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "densenet121"])
@pytest.mark.parametrize(("size", "images"), [(64, 32), (224, 4)])
def test_a_network_that_no_sample_is_like_is_foretold_by_the_same_law(made_up, name, size, images):
    timing = Timing(made_up, beyond=0.0)
    network = getattr(torchvision.models, name)()
    for training in (False, True):
        found = operations(network, channels=3, size=size, training=training)
        for threads in (1, 2):
            actual = sum(law(one, images, threads, training=training) for one in found)
            foretold = timing.step_seconds(found, images, precision="bf16", training=training, threads=threads)
            assert foretold == pytest.approx(actual, rel=0.2)


def test_time_grows_with_the_batch_as_the_work_does(made_up):
    timing = Timing(made_up)
    found = operations(torchvision.models.resnet18(), channels=3, size=224, training=False)
    few, many = (timing.step_seconds(found, n, precision="bf16", training=False) for n in (16, 128))
    assert 6 < many / few < 10


def test_how_much_longer_whole_networks_take_is_the_machines_own(made_up):
    found = operations(torchvision.models.resnet18(), channels=3, size=64, training=True)
    own = Timing(replace(made_up, beyond=(0.25, 0.75)))
    for parts, share in ((1, 0.25), (2, 0.75)):
        alone, usual, here = (
            timing.step_seconds(found, 64, precision="bf16", training=True, parts=parts)
            for timing in (Timing(made_up, beyond=0.0), Timing(made_up), own)
        )
        assert alone < usual
        assert here == pytest.approx(alone + share * (usual - alone))


def test_a_profile_is_the_same_after_it_was_kept(made_up, tmp_path):
    for one in (made_up, replace(made_up, beyond=(0.5, 1.25))):
        one.save(tmp_path / "p.json")
        assert Profile.load(tmp_path / "p.json") == one
    replace(made_up, version=0).save(tmp_path / "old.json")
    with pytest.raises(ValueError, match="version 0"):
        Profile.load(tmp_path / "old.json")


# ---- accelerators, units ----


def test_an_accelerator_is_bound_by_arithmetic_or_by_bytes():
    device = ACCELERATORS["a100"]
    large = Operation("convolution", 1e6, 1e6, macs=1e9, weights=10, channels=(256, 256), kernel=9)
    seconds = accelerator_seconds([large], 1000, device, precision="bf16", training=False)
    assert seconds == pytest.approx(1e12 / (0.85 * 156e12), rel=0.01)
    moving = Operation("relu", 1e6, 1e6)
    seconds = accelerator_seconds([moving], 1000, device, precision="bf16", training=False)
    assert seconds == pytest.approx(4e9 / (0.8 * 1555e9), rel=0.01)
    with pytest.raises(UsageError, match="device: given 'a1000', accepted: t4, v100"):
        accelerator("a1000")


def test_as_the_slides_reckon():
    # Ten layers of 100 channels, 5×5, on 64×64: 10 G; a million examples: 10 P; 18 h and 14 min on the slide
    network = nn.Sequential(*(nn.Conv2d(100, 100, 5, padding=2) for _ in range(10)))
    counted = count(network, channels=100, size=64)
    assert counted.seconds_at(0.15e12, 1e6) / 3600 == pytest.approx(18.96, abs=0.01)
    assert counted.seconds_at(12e12, 1e6) / 60 == pytest.approx(14.2, abs=0.05)


def test_an_amount_is_a_figure_with_an_interval():
    whole = Amount.within(10.0, 1.25) * 2 + Amount(1.0, 0.5, 2.0)
    assert whole == Amount(21.0, 16.5, 27.0)
    assert 20 in whole
    assert 28 not in whole
