"""Whatever computes the scores, the answers are the same; the fastest is found out and remembered."""

import ctypes
import dataclasses
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from resnets import small_resnet

from lenext.bench import bench_bundle
from lenext.classifier import ConvNet
from lenext.costing.device import multiplies_bf16
from lenext.data import Dataset, Preprocess, preprocess
from lenext.errors import UsageError
from lenext.run import Result
from lenext.ship import engines
from lenext.ship.bundle import Bundle, load
from lenext.ship.graph import for_bf16, program, to_onnx
from lenext.ship.mixed import in_bf16
from lenext.ship.predict import probabilities
from lenext.ship.rounding import rounded_together
from lenext.spec import Data, Model, Run


@pytest.fixture
def bundle(run: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("LENEXT_CACHE", str(tmp_path / "cache"))
    return load(run.bundle)


def test_every_engine_answers_as_torch_does(bundle: Bundle, digits: Dataset) -> None:
    images = digits.test.images[:70]  # more than an engine gets at a time
    expected = bundle.answer([""] * 70, images)
    apart = [images, *images[:3, None]]  # one by one as well
    for name in engines.ENGINES:
        if "bf16" in name and not multiplies_bf16(torch.device("cpu")):
            with pytest.raises(UsageError, match="does not multiply bfloat16"):
                engines.with_engine(bundle, name)
            continue
        if name == "openvino_mixed":
            with pytest.raises(UsageError, match="without residual sums"):
                engines.with_engine(bundle, name)
            continue
        other = engines.with_engine(bundle, name)
        found = [answer for some in apart for answer in other.answer([""] * len(some), some)]
        within = 2e-2 if "bf16" in name else 1e-4
        np.testing.assert_allclose(
            [a.probabilities for a in found], [a.probabilities for a in expected + expected[:3]], atol=within,
            err_msg=name,
        )  # fmt: skip
        assert other.scores(images[:0]).shape == (0, 10)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_threads_that_ask_at_a_time_get_their_own_answers(name: str, bundle: Bundle, digits: Dataset) -> None:
    images = digits.test.images[:300]
    engine = engines.with_engine(bundle, name)
    expected = engine.scores(images)
    parts = [slice(start, start + 1 + start % 3) for start in range(297)]
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda part: engine.scores(images[part]), parts)]
    for part, scores in zip(parts, found, strict=True):
        np.testing.assert_allclose(scores, expected[part], atol=1e-4)


@pytest.mark.skipif(not multiplies_bf16(torch.device("cpu")), reason="needs a processor that multiplies bfloat16")
@pytest.mark.parametrize("name", ["torch_bf16", "openvino_bf16"])
def test_where_bf16_leaves_the_class_open_float32_decides(name: str, bundle: Bundle, digits: Dataset) -> None:
    one, other = digits.test.images[:100].astype(np.float32), digits.test.images[100:200]
    images = np.concatenate([one * w + other * (1 - w) for w in np.linspace(0.3, 0.7, 21)]).astype(np.uint8)
    expected = bundle.scores(images).argmax(axis=1)
    engine = engines.with_engine(bundle, name).classifier
    assert isinstance(engine, engines.Engine)
    assert (engine.rough(images).argmax(axis=1) != expected).any()
    assert (engine.scores(images).argmax(axis=1) == expected).all()


@pytest.mark.skipif(not multiplies_bf16(torch.device("cpu")), reason="needs a processor that multiplies bfloat16")
def test_a_network_with_batch_norm_and_views_in_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENEXT_CACHE", str(tmp_path / "cache"))
    bundle = small_resnet()
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), np.uint8)
    engine = engines.with_engine(bundle, "torch_bf16").classifier
    assert isinstance(engine, engines.Engine)
    np.testing.assert_allclose(engine.compute(images), bundle.scores(images), atol=0.01)


class Block(torch.nn.Module):
    """A residual block, with a convolution in its shortcut where channels change; its branch is a small part of it."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.branch = torch.nn.Sequential(
            torch.nn.Conv2d(channels, out, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(out, out, 3, padding=1)
        )
        self.shortcut = torch.nn.Identity() if channels == out else torch.nn.Conv2d(channels, out, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return (0.1 * self.branch(maps) + self.shortcut(maps)).relu()


def of_blocks(*blocks: torch.nn.Module) -> Bundle:
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(8), *blocks, torch.nn.Flatten()
    )
    middle = np.full(3, 127.3, np.float32)
    classifier = ConvNet(
        network, tuple(map(str, range(64))), Preprocess(16, 3), mean=middle, std=middle / 2, mirror=True
    )
    return Bundle.create(classifier, Run(Data("x"), Model("x")), metrics={}, fingerprint="", golden_files=[])


@pytest.fixture
def mixed(tmp_path: Path) -> Callable[..., tuple[bytes, bytes]]:
    openvino = pytest.importorskip("openvino")

    def make(bundle: Bundle, part: float, *, bf16: bool = True) -> tuple[bytes, bytes]:
        path = tmp_path / "graph.onnx"
        path.write_bytes(to_onnx(program(bundle, bf16=bf16)).SerializeToString())
        return in_bf16(openvino.convert_model(path), part)

    return make


def test_what_stays_in_float32(mixed: Callable[..., tuple[bytes, bytes]]) -> None:
    bundle = of_blocks(Block(8, 8), Block(8, 16), Block(16, 16))

    def staying(part: float, *, bf16: bool = True) -> Counter[str]:
        graph, _ = mixed(bundle, part, bf16=bf16)
        layers = [
            layer.get("type", "")
            for layer in ElementTree.fromstring(graph).iter("layer")
            if layer.find("rt_info/attribute[@name='precise']") is not None
        ]
        return Counter({kind: layers.count(kind) for kind in ("Convolution", "Add", "ReLU", "MaxPool")})

    # There are two views: of each what the first convolution gives, and the last sum
    always = Counter({"Convolution": 0, "Add": 4, "ReLU": 4, "MaxPool": 2})
    assert staying(0) == always
    assert staying(0.4) == always + Counter({"Add": 2, "ReLU": 2})
    assert staying(1) == always + Counter({"Add": 6, "ReLU": 4, "Convolution": 2})
    # Where bfloat16 does not hold images and weights: taking off the mean, once, and the first convolutions
    assert staying(0, bf16=False) == always + Counter({"Add": 1, "Convolution": 2})


@pytest.mark.skipif(not multiplies_bf16(torch.device("cpu")), reason="needs a processor that multiplies bfloat16")
def test_the_more_sums_are_in_float32_the_less_bf16_is_off(
    mixed: Callable[..., tuple[bytes, bytes]],
) -> None:
    import openvino

    torch.manual_seed(0)
    bundle = of_blocks(*(Block(8, 8) for _ in range(14)), Block(8, 16))
    images = np.random.default_rng(0).integers(0, 256, (100, 16, 16, 3), np.uint8)
    expected, off = bundle.scores(images), []
    for part in (0, 1 / 3, 1):
        model = openvino.compile_model(openvino.Core().read_model(*mixed(bundle, part)), "CPU",
                                       {"INFERENCE_PRECISION_HINT": "bf16"})  # fmt: skip
        off.append(float((model(images)["scores"] - expected).std(axis=0).mean()))
    assert off[2] < 0.5 * off[0]
    assert off[1] < 0.9 * off[0]


def test_made_for_bf16_a_network_computes_the_same(bundle: Bundle, digits: Dataset) -> None:
    images = digits.test.images[:50]
    for classifier in (bundle.classifier, small_resnet().classifier):
        assert isinstance(classifier, ConvNet)
        shape = classifier.preprocess
        of = np.resize(images, (50, shape.size, shape.size, shape.channels))
        made = for_bf16(classifier)
        numbers = made.normalised(torch.from_numpy(of))
        assert torch.equal(numbers, numbers.round())
        assert torch.equal(numbers, numbers.bfloat16().float())
        # Not quite the same where images are padded
        np.testing.assert_allclose(made.scores(of), classifier.scores(of), atol=5e-3)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation"),
    [(16, 3, 1, 1, 1), (32, 7, 2, 3, 1), (33, 7, 2, 3, 1), (23, 11, 4, 2, 1), (16, 4, 4, 0, 1), (9, 2, 2, 0, 1),
     (11, 1, 3, 2, 1), (14, 3, 2, 1, 2), (15, (3, 5), (1, 2), (0, 2), 1)],
)  # fmt: skip
def test_the_first_convolution_goes_by_columns(
    size: int, kernel: Any, stride: Any, padding: Any, dilation: int, tmp_path: Path
) -> None:
    """Exactly the same, border and all, where bfloat16 holds the weights: torchvision's mean is no whole number."""
    openvino = pytest.importorskip("openvino")
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(3, 5, kernel, stride, padding, dilation)
    with torch.no_grad():
        convolution.weight.mul_(64).round_().div_(256)
    network = torch.nn.Sequential(convolution, torch.nn.ReLU(), torch.nn.Flatten())
    images = np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)
    outputs = network(torch.zeros(1, 3, size, size)).shape[1]
    mean = np.array([123.675, 116.28, 103.53], np.float32)
    classifier = ConvNet(
        network.eval(), tuple(map(str, range(outputs))), Preprocess(size, 3), mean=mean, std=np.full(3, 64, np.float32)
    )
    expected, made = classifier.scores(images), for_bf16(classifier)
    np.testing.assert_allclose(made.scores(images), expected, atol=1e-4)
    first = next(node for node in made.network.graph.nodes if node.target is torch.ops.aten.conv2d.default)
    assert first.args[3][1] == (1 if dilation == 1 else 2)
    bundle = Bundle.create(classifier, Run(Data("x"), Model("x")), metrics={}, fingerprint="", golden_files=[])
    path = tmp_path / "graph.onnx"
    path.write_bytes(to_onnx(program(bundle, bf16=True)).SerializeToString())
    model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(model(images)["scores"], expected, atol=1e-4)


def test_weights_that_are_rounded_together_are_off_by_less_on_pictures(stamps: Path) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Conv2d(3, 16, 7).weight.detach()
    files = [path.read_bytes() for path in sorted(stamps.rglob("*.png"))[::20]]
    pictures = np.array([preprocess(file, Preprocess(64, 3)) for file in files], np.float32)
    images = torch.from_numpy(pictures - 128).permute(0, 3, 1, 2)
    noise = torch.randint(-128, 128, (4, 3, 64, 64)).float()

    def off(rounded: torch.Tensor, images: torch.Tensor) -> float:
        return float(torch.nn.functional.conv2d(images, rounded - weight).square().mean().sqrt())

    apart, together = weight.bfloat16().float(), rounded_together(weight)
    assert torch.equal(together, together.bfloat16().float())
    assert off(together, images) < off(apart, images) / 5
    assert off(together, noise) < off(apart, noise) * 1.25
    assert torch.equal(rounded_together(apart), apart)  # nothing to round


@pytest.mark.skipif(not multiplies_bf16(torch.device("cpu")), reason="needs a processor that multiplies bfloat16")
@pytest.mark.parametrize("name", ["torch_bf16", "openvino_bf16"])
def test_bf16_is_not_for_an_svm(name: str, svm_run: Result) -> None:
    with pytest.raises(UsageError, match="an SVM computes in float32 and float64"):
        engines.with_engine(load(svm_run.bundle), name)


def test_the_fastest_is_measured_once(run: Result, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    choice = engines.fastest(bundle, batch_size=4)
    assert choice.engine == max(choice.images_per_second, key=choice.images_per_second.__getitem__)
    assert {"torch", "onnxruntime", "openvino"} <= {*choice.images_per_second}
    assert {*choice.images_per_second} | {*choice.left_out} == {*engines.ENGINES}
    monkeypatch.setattr(engines, "measure", None)
    assert engines.fastest(load(run.bundle), batch_size=4) == choice
    measured = bench_bundle(str(run.bundle), batch_size=4, repeats=1, seconds=0.01)
    assert (measured.engine, measured.engines) == (choice.engine, choice.images_per_second)
    fastest = engines.with_engine(bundle, choice.engine).classifier
    assert measured.float32_share == (fastest.share if isinstance(fastest, engines.Engine) else None)
    assert measured.images_per_second > 0


def test_an_engine_that_predicts_otherwise_takes_no_part(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(of: Bundle) -> engines.Scores:
        return lambda images: of.scores(np.roll(images, 1, axis=2))  # as a preprocessing that is off by a pixel

    def random(of: Bundle) -> engines.Scores:
        return lambda images: np.random.default_rng(0).normal(size=(len(images), 10)).astype(np.float32)

    def broken(of: Bundle) -> engines.Scores:
        raise RuntimeError(f"[CPU] a node of {len(of.classes)} classes\nis not initialized")

    others = {"shifted": shifted, "random": random, "broken": broken}
    monkeypatch.setattr(engines, "ENGINES", {"torch": engines.ENGINES["torch"], **others})
    choice = engines.measure(bundle, batch_size=2)
    assert [*choice.images_per_second] == ["torch"]
    assert choice.left_out.pop("broken") == "[CPU] a node of 10 classes is not initialized"
    assert all("probabilities differ by" in reason for reason in choice.left_out.values())
    assert len(choice.left_out) == 2


def off(by: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Callable[[Bundle], engines.Scores]:
    """An engine whose scores are off by 0 to 1 times what `by` says of the images' mean brightness."""

    def rough(of: Bundle) -> engines.Scores:
        def compute(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            times = by(images.mean(axis=(1, 2, 3), dtype=np.float32))[:, None]
            return of.scores(images) + times * np.linspace(0, 1, 10, dtype=np.float32)

        return compute

    return rough


def test_where_rounding_would_change_an_answer_float32_decides(
    bundle: Bundle, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engines.ENGINES, "torch_bf16", off(np.sin))
    engine = engines.with_engine(bundle, "torch_bf16").classifier
    assert isinstance(engine, engines.Engine)
    again = engines.with_engine(bundle, "torch_bf16").classifier
    assert isinstance(again, engines.Engine)
    assert again.error == engine.error > 0.3  # remembered
    images = digits.test.images
    for some in (images, 255 - images):
        expected, rough, found = (
            probabilities(of) for of in (bundle.scores(some), engine.rough(some), engine.scores(some))
        )
        assert np.abs(rough - expected).max() > 5e-2
        assert np.abs(found - expected).max() <= 2e-2
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
    asked: list[int] = []

    def exact(some: NDArray[np.uint8]) -> NDArray[np.float32]:
        asked.append(len(some))
        return bundle.scores(some)

    dataclasses.replace(engine, exact=exact).scores(images)
    assert 0 < sum(asked) < 0.7 * len(images)  # what is clear is left as it is
    assert engine.share == pytest.approx(sum(asked) / len(images), abs=0.1)  # as of the validation images


def test_what_is_computed_twice_takes_both_times(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def in_seconds(seconds: float) -> engines.Scores:
        def compute(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            clock[0] += seconds
            return np.zeros((len(images), 10), np.float32)

        return compute

    images = digits.test.images[:10]
    engine = engines.Engine(digits.classes, digits.preprocess, in_seconds(0.1), exact=in_seconds(0.3))
    assert engines.rate(engine, images, 1.0) == pytest.approx(10 / 0.1)
    assert engines.rate(dataclasses.replace(engine, share=0.2), images, 1.0) == pytest.approx(10 / (0.1 + 0.2 * 0.3))


def test_an_engine_that_is_off_for_odd_pictures_takes_no_part(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.ENGINES, "torch_bf16", off(lambda mean: 1.0 * (mean > 128)))  # digits are dark
    choice = engines.measure(bundle, batch_size=2)
    assert "probabilities differ by" in choice.left_out["torch_bf16"]


class SignalStack(ctypes.Structure):
    """stack_t of sigaltstack(2): where a thread handles its signals."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    @classmethod
    def of_this_thread(cls) -> int | None:
        stack = cls()
        assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
        return stack.place


def test_after_measuring_signals_are_handled_where_they_were(bundle: Bundle) -> None:
    before = SignalStack.of_this_thread()
    engines.measure(bundle)
    assert SignalStack.of_this_thread() in (before, None)  # not on one that is gone


def test_what_no_engine_is_called_is_refused(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="engine: given 'tensorrt', accepted: torch, torch_bf16, onnxruntime"):
        engines.with_engine(bundle, "tensorrt")


def test_another_bundle_is_another_file(run: Result, svm_run: Result, tmp_path: Path) -> None:
    bundle = load(run.bundle)
    assert load(bundle.save(tmp_path / "copy.lenext")).sha256 == bundle.sha256
    assert load(svm_run.bundle).sha256 != bundle.sha256
