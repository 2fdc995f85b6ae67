"""What a run will cost, foretold: how the figures hang together. How near they come is in benchmarks/."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import lenext
from lenext import foresight
from lenext.costing.profiling import REFERENCE, Profile, cache_file, known_profile, measure
from lenext.costing.timing import Timing
from lenext.data import prepare
from lenext.data.pack import pack
from lenext.errors import UsageError
from lenext.foresight import Shape, foresee, foresee_shape, measured_machine, plan, this_machine, train_step_seconds
from lenext.ladder import resolve
from lenext.nn import on_threads
from lenext.spec import Data


@pytest.fixture(autouse=True)
def unmeasured(tmp_path, monkeypatch):
    """A machine whose cache is empty."""
    monkeypatch.setenv("LENEXT_CACHE", str(tmp_path))
    foresight._timing.cache_clear()
    yield
    foresight._timing.cache_clear()


SHAPE = Shape(classes=10, channels=1, size=28, train=54_000, val=6_000, test=10_000)


def test_an_epoch_is_its_steps_and_its_validation():
    spec = resolve("x", "resnet20")
    seen, double = foresee_shape(spec, SHAPE), foresee_shape(spec, replace(SHAPE, train=108_000))
    steps = 54_000 // spec.recipe.batch_size
    assert seen.epoch_seconds.value > steps * seen.step_seconds.value
    assert double.step_seconds == seen.step_seconds
    more = double.epoch_seconds.value - seen.epoch_seconds.value
    assert more == pytest.approx(steps * seen.step_seconds.value, rel=0.01)
    ten, twenty = seen.seconds(10), seen.seconds(20)
    assert twenty.value - ten.value == pytest.approx(10 * seen.epoch_seconds.value)
    assert ten.low < ten.value < ten.high


def test_larger_networks_take_longer_and_more_memory():
    names = ("lenet_relu", "resnet20", "resnet56", "resnet110")
    seen = [foresee_shape(resolve("x", name), SHAPE) for name in names]
    times = [one.step_seconds.value for one in seen]
    memory = [one.peak_memory_bytes.value for one in seen]
    assert times == sorted(times)
    assert memory == sorted(memory)
    # By count 56 and 110 layers are 3.1 and 6.2 times 20, and nothing is gained by depth
    assert times[3] / times[1] == pytest.approx(253 / 41, rel=0.25)


def test_with_some_of_the_cores_a_run_takes_longer_the_fewer_they_are(digits, monkeypatch):
    whole = Profile.load(REFERENCE)
    monkeypatch.setattr("lenext.foresight.known_profile", lambda: replace(whole, threads=4, samples=tuple(
        replace(sample, threads=4 if sample.threads > 1 else 1) for sample in whole.samples)))  # fmt: skip
    for name in ("resnet20", "svm_linear"):
        spec = resolve("digits", name)
        with on_threads(4):
            four, two, one = (foresee(spec, digits, cores=cores).seconds(20).value for cores in (4, 2, 1))
            assert foresee(spec, digits) == foresee(spec, digits, cores=64)
        # Amdahl: what one and four cores take fixes the part that cores share; two leave a third of what four save
        assert two - four == pytest.approx((one - four) / 3)
        assert four < one <= 4 * four
    small = resolve("digits", "softmax")  # too little to be shared by cores
    assert foresee(small, digits, cores=1).epoch_seconds == foresee(small, digits).epoch_seconds


def test_images_and_judging_take_memory_too():
    spec = resolve("x", "resnet20")
    seen = foresee_shape(spec, SHAPE)
    more = foresee_shape(spec, replace(SHAPE, train=154_000))
    assert more.peak_memory_bytes.value - seen.peak_memory_bytes.value == pytest.approx(100_000 * 28 * 28)


def test_an_average_of_the_weights_and_a_second_moment_take_memory():
    def memory(**recipe):
        return foresee_shape(resolve("x", "alexnet_owt", {"recipe": recipe}), small).peak_memory_bytes.value

    small = Shape(classes=10, channels=3, size=64, train=64)
    weights = 4 * sum(p.numel() for p in lenext.build("alexnet_owt", classes=10, size=64).parameters())
    plain = memory(optimizer="sgd", momentum=0.9, ema=0.0)
    assert memory(optimizer="adamw", momentum=0.9, ema=0.0) - plain > weights
    assert memory(optimizer="sgd", momentum=0.9, ema=0.1) - plain > weights


def test_muon_adds_its_products_to_a_step_whatever_the_batch():
    def step(optimizer, batch):
        settings = {"recipe": {"optimizer": optimizer, "batch_size": batch}}
        return foresee_shape(resolve("x", "resnet9_late", settings), SHAPE).step_seconds.value

    assert step("muon", 256) > step("sgd", 256)
    assert step("muon", 256) - step("sgd", 256) == pytest.approx(step("muon", 64) - step("sgd", 64), rel=1e-6)


def test_a_classical_rung_has_no_epochs():
    seen = foresee_shape(resolve("x", "bow_sift"), SHAPE)
    assert seen.step_seconds is None
    assert seen.epoch_seconds is None
    assert seen.seconds(1) == seen.seconds(100)
    few = foresee_shape(resolve("x", "bow_sift"), replace(SHAPE, train=5_400))
    assert few.fit_seconds.value < seen.fit_seconds.value


def test_images_that_are_there_are_their_shape():
    images = prepare(Data("digits"))
    assert foresee(resolve("digits", "lenet_relu"), images) == foresee_shape(
        resolve("digits", "lenet_relu"), Shape.of(images)
    )


def test_a_budget_holds_as_many_epochs_as_it_says():
    spec = resolve("x", "resnet20")
    found = plan(spec, SHAPE, budget=600.0, price=3.6, watts=100)
    seen = foresee_shape(spec, SHAPE)
    assert seen.seconds(found.epochs_in_budget).value == pytest.approx(600)
    assert found.money.value == pytest.approx(found.seconds.value / 1000)
    assert found.kilowatt_hours.value == pytest.approx(found.seconds.value / 36_000)
    assert found.largest_batch > spec.recipe.batch_size


def test_on_an_accelerator_it_is_sooner_done():
    here, there = (plan(resolve("x", "resnet50"), SHAPE, on=on) for on in (None, "a100"))
    assert there.device == "a100"
    assert there.seconds.value < here.seconds.value
    with pytest.raises(UsageError, match="device: given 'abacus', accepted: t4, "):
        plan(resolve("x", "resnet50"), SHAPE, on="abacus")
    with pytest.raises(UsageError, match="svm_linear is fitted on a CPU"):
        plan(resolve("x", "svm_linear"), SHAPE, on="a100")


def test_an_accelerator_waits_for_the_images_and_a_processor_makes_them_too(tmp_path):
    pack("digits", tmp_path / "digits.pack")
    packed = Shape.of(prepare(Data(str(tmp_path / "digits.pack"), size=64)))
    spec = resolve("x", "lenet_relu")

    def seconds(plan):
        return plan.step_seconds.value, plan.batch_size / plan.data_images_per_second

    assert packed.lazy is not None
    assert packed.bytes == 0
    waiting, images = seconds(plan(spec, packed, on="h100"))
    assert waiting == pytest.approx(images)
    (here, images), (in_memory, little) = (seconds(plan(spec, one)) for one in (packed, replace(packed, lazy=None)))
    assert here - images == pytest.approx(in_memory - little)


def test_images_beyond_memory_have_to_be_decoded():
    spec = resolve("x", "lenet_relu")
    few, many = (plan(spec, replace(SHAPE, size=224, train=n)) for n in (2_000, 10_000_000_000))
    decoding = this_machine().profile.decoding / (469 * 387)
    rate, in_memory = many.data_images_per_second, few.data_images_per_second
    assert 1 / rate == pytest.approx(1 / in_memory + 1 / decoding)


def test_a_probe_narrows_the_interval():
    spec = resolve("x", "lenet_relu")
    rough, tried = (plan(spec, SHAPE, probe=probe).step_seconds for probe in (False, True))
    assert tried.high / tried.low < rough.high / rough.low


def test_a_machine_that_was_not_measured_borrows_another_ones_profile():
    borrowed = known_profile()
    assert borrowed.borrowed
    assert borrowed.threads == torch.get_num_threads()
    rough = foresee_shape(resolve("x", "resnet20"), SHAPE)
    Profile.load(REFERENCE).save(cache_file())
    foresight._timing.cache_clear()
    assert not known_profile().borrowed
    known = foresee_shape(resolve("x", "resnet20"), SHAPE)
    assert known.step_seconds.high / known.step_seconds.value < rough.step_seconds.high / rough.step_seconds.value


def test_what_is_foretold_is_for_as_many_threads_as_torch_is_set_to():
    for threads in (1, 2):
        with on_threads(threads):
            assert foresee_shape(resolve("x", "resnet20"), SHAPE).step_seconds.value > 0
            assert this_machine().profile.threads == threads


def test_a_machine_is_measured_once_whole_networks_included(monkeypatch):
    monkeypatch.setattr(foresight, "_WHOLE", [("resnet20", 1.0, 32, 8)])
    monkeypatch.setattr(foresight, "_IN_PARTS", [("resnet20", 0.5, 28, 64)])
    seconds = Profile.load(REFERENCE).seconds
    Profile.load(REFERENCE).save(cache_file())
    told: list[str] = []
    found = measured_machine(told.append)
    assert found.beyond is not None
    assert all(0 <= share <= 2 for share in found.beyond)
    assert found.seconds > seconds
    assert known_profile() == found
    monkeypatch.setattr(foresight, "bench_train", None)
    assert measured_machine(told.append) == found
    assert told == ["training some small networks for a moment"]


@pytest.mark.parametrize("share", [0.0, 0.4, 1.5])
def test_how_much_longer_whole_networks_take_is_learnt_from_what_they_took(monkeypatch, share):
    """On a machine where they take exactly so much longer."""
    machine = Timing(Profile.load(REFERENCE), beyond=share)

    def took(name, *, size, channels, classes, batch_size, settings, **_):
        network = lenext.build(name, classes=classes, channels=channels, size=size, **settings["model"])
        seconds = train_step_seconds(network, channels, size, batch_size, machine.profile.precision, machine)
        return SimpleNamespace(images_per_second=batch_size / seconds)

    monkeypatch.setattr(foresight, "bench_train", took)
    Profile.load(REFERENCE).save(cache_file())
    assert measured_machine(lambda _: None).beyond == pytest.approx((share, share), abs=1e-3)


def test_what_is_measured_is_a_profile():
    found = measure(every=24)
    assert found.threads == torch.get_num_threads()
    assert found.bandwidth > 1e8
    assert found.decoding > 1e6
    assert all(sample.seconds > 0 for sample in found.samples)
    assert {sample.training for sample in found.samples} == {False, True}
    assert {sample.precision for sample in found.samples} <= set(found.peaks)
