"""What computes a bundle's scores: torch, ONNX Runtime or OpenVINO, whichever is fastest here and predicts the same.

No engine is the best everywhere: it depends on the network, the processor and the number of images at a time. So it is
measured, for a moment, and kept for this machine. An engine takes part only where it agrees with the bundle on its
golden images, also turned, mirrored, dark and negative: in every class, and in every probability to 1e-4 in float32, to
1e-2 in bfloat16, with which OpenVINO has float32 where rounding tells most (`lenext.ship.mixed`). How far it is off is
learnt from golden images. What it is off by in general is taken off; where the rest could change an answer, float32
decides, so that the class is the bundle's with every engine, and a probability is that to 2e-2 (benchmarks/parity.py).
"""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lenext.allocator import keep_memory
from lenext.classifier import Classifier, ConvNet
from lenext.costing.device import multiplies_bf16
from lenext.data import Preprocess, preprocess
from lenext.errors import LenextError, UsageError
from lenext.record import environment, write_whole
from lenext.ship.bundle import Bundle
from lenext.ship.graph import for_bf16, program, to_onnx
from lenext.ship.mixed import in_bf16
from lenext.ship.predict import probabilities

Made = TypeVar("Made")
Scores = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

TOLERANCE = {"float32": 1e-4, "bf16": 2e-2}  # of a probability
_TO_TAKE_PART = TOLERANCE | {"bf16": 1e-2}  # the same of the golden images, which are few
BATCH = 32
# Times the largest error of scores that golden images show in bf16. Of 1,238 other images 4 showed more, up to 1.8
# times; where two classes were close, which is where it counts, at most 0.9 (ResNet-50, docs/speed.md)
_SAFETY = 1.5
_VIEWS = 8  # of a golden image, turned and mirrored
_RULES = 11  # counts the changes of what is made of a bundle and remembered, and of who takes part
_SECONDS = 1.0  # that an engine is measured for
_ROUNDS = 5


@dataclass(frozen=True)
class Engine:
    """A classifier whose scores come from elsewhere: `compute` takes images uint8 [n, H, W, C], n up to `BATCH`.

    With `exact` these are rough: they are off by `bias` [K], and two of them may then be off against each other by
    `error`. Images of which that would change an answer are left to `exact`, of the validation images `share`.
    """

    classes: tuple[str, ...]
    preprocess: Preprocess
    compute: Scores
    exact: Scores | None = None
    bias: NDArray[np.float32] | float = 0.0
    error: float = 0.0
    share: float = 0.0

    def scores(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images uint8 [N, H, W, C] to scores float32 [N, K]."""
        scores = self.rough(images)
        if self.exact is not None and (open_ := _is_open(scores, self.error)).any():
            scores[open_] = self.exact(images[open_])
        return scores

    def rough(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same by `compute` alone."""
        if 0 < len(images) <= BATCH:
            return self.compute(images) - self.bias
        parts = [self.rough(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)), np.float32)


@dataclass(frozen=True)
class Choice:
    """The fastest engine, what each that agrees makes in images per second, and why others take no part."""

    engine: str
    images_per_second: dict[str, float]
    left_out: dict[str, str]
    batch_size: int


def _torch(bundle: Bundle) -> Scores:
    return bundle.classifier.scores


def _torch_bf16(bundle: Bundle) -> Scores:
    # Batch norm by itself would round once more: VGG-11 was twice as far off, and ResNet-50 4 to 14 % slower
    classifier = for_bf16(_must_be_for_bf16(bundle)).to(memory_format=torch.channels_last)

    def compute(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return classifier.scores(images)

    return compute


def _onnxruntime(bundle: Bundle) -> Scores:
    _require("onnx", "onnxscript", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(_onnx_file(bundle), options, providers=["CPUExecutionProvider"])

    def compute(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = session.run(["scores"], {"images": images})[0]
        return scores

    return compute


def _openvino(bundle: Bundle) -> Scores:
    _require("onnx", "onnxscript", "openvino")
    return _compiled(_onnx_file(bundle), "f32")


def _openvino_bf16(bundle: Bundle, part: float = 0.0) -> Scores:
    """In bfloat16, but for the network's beginning and the first `part` of its sums (`lenext.ship.mixed`)."""
    _must_be_for_bf16(bundle)
    _require("onnx", "onnxscript", "openvino")
    import openvino

    path = _folder(bundle) / f"bf16-{part:.2f}.xml"
    if not path.is_file():
        graph, weights = in_bf16(openvino.convert_model(_onnx_file(bundle, bf16=True)), part)
        write_whole(path.with_suffix(".bin"), weights)
        write_whole(path, graph)
    return _compiled(path, "bf16")


def _compiled(path: Path, precision: str) -> Scores:
    """The model in the file, compiled by OpenVINO when it is asked: once for one image, once for several at a time."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }

    @functools.cache
    def compiled(number: int) -> Scores:
        """For that number of images, -1 for any."""
        core = openvino.Core()
        model = core.read_model(path)
        model.reshape([number, *model.input().partial_shape[1:]])
        return _by_requests(on_a_thread(functools.partial(core.compile_model, model, "CPU", settings)))

    return lambda images: compiled(1 if len(images) == 1 else -1)(images)


def _by_requests(model: Any) -> Scores:
    """The scores of a model that OpenVINO has compiled, for several threads at a time.

    Each has a request to itself and leaves it to the next one: to make another takes a fifth of LeNet's time.
    """
    idle: deque[Any] = deque()

    def compute(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        try:
            request = idle.pop()
        except IndexError:
            request = model.create_infer_request()
        scores: NDArray[np.float32] = request.infer(images, share_inputs=True)["scores"].copy()  # it is the request's
        idle.append(request)
        return scores

    return compute


ENGINES: dict[str, Callable[[Bundle], Scores]] = {
    "torch": _torch,
    "torch_bf16": _torch_bf16,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "openvino_bf16": _openvino_bf16,
    "openvino_mixed": functools.partial(_openvino_bf16, part=0.45),
}
# What decides where bf16 leaves an answer open
_EXACT = {"torch_bf16": "torch", "openvino_bf16": "openvino", "openvino_mixed": "openvino"}


def with_engine(bundle: Bundle, name: str) -> Bundle:
    """The bundle, its scores from the engine `name`; of ``torch``, itself. The process keeps its memory from then on.

    Raises UsageError for another name, a library that is missing, and a model or machine that the engine is not for.
    """
    if name not in ENGINES:
        raise UsageError(f"engine: given {name!r}, accepted: {', '.join(ENGINES)}, auto")
    keep_memory()
    if name == "torch":
        return bundle
    engine = Engine(bundle.classes, bundle.preprocess, ENGINES[name](bundle))
    if name in _EXACT:
        exact = ENGINES[_EXACT[name]](bundle)
        engine = dataclasses.replace(engine, exact=exact, **_off(bundle, name, engine))
        if engine.share:  # it will be asked: what that takes is prepared before somebody waits for it
            shape = bundle.preprocess
            blank = np.zeros((2, shape.size, shape.size, shape.channels), np.uint8)
            for images in (blank[:1], blank):
                exact(images)
    return dataclasses.replace(bundle, classifier=engine)


def choose(bundle: Bundle, engine: str, *, measured: bool = True) -> str:
    """The name of the engine that is asked for; for ``auto`` of the fastest, as far as that is known or `measured`.

    Measuring takes seconds, which few pictures are not worth: they are left to torch.
    """
    if engine != "auto":
        return engine
    choice = fastest(bundle) if measured else known(bundle)
    return choice.engine if choice else "torch"


def fastest(bundle: Bundle, *, batch_size: int = BATCH) -> Choice:
    """The engine that predicts most images per second here, `batch_size` at a time; measured once, then remembered."""
    choice = known(bundle, batch_size=batch_size)
    if choice is None:
        choice, path = measure(bundle, batch_size=batch_size), _remembered(bundle, f"choice-{batch_size}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(dataclasses.asdict(choice), indent=2).encode())
    return choice


def known(bundle: Bundle, *, batch_size: int = BATCH) -> Choice | None:
    """What was measured before, on this machine with its present software."""
    path = _remembered(bundle, f"choice-{batch_size}")
    return Choice(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def measure(bundle: Bundle, *, batch_size: int = BATCH) -> Choice:
    """The engines side by side; which is the fastest is not remembered."""
    images = pictures(bundle)
    expected = probabilities(bundle.scores(images))
    taking_part, left_out = {}, {}
    for name in ENGINES:
        try:
            found = with_engine(bundle, name)
            _must_agree(probabilities(found.scores(images)), expected, precision(name))
        except (LenextError, RuntimeError) as error:  # an engine's own errors are of the latter kind
            left_out[name] = " ".join(str(error).split())
        else:
            taking_part[name] = found.classifier
    batch = np.resize(images, (batch_size, *images.shape[1:]))
    rates: dict[str, list[float]] = {name: [] for name in taking_part}
    for _ in range(_ROUNDS):  # side by side, as the machine may have other work at times
        for name, classifier in taking_part.items():
            rates[name].append(rate(classifier, batch, _SECONDS / _ROUNDS))
    medians = {name: round(statistics.median(rate), 2) for name, rate in rates.items()}
    return Choice(max(medians, key=medians.__getitem__), medians, left_out, batch_size)


def rate(classifier: Classifier, images: NDArray[np.uint8], seconds: float) -> float:
    """Images per second of scores for `images` at a time, as many of them computed twice as of validation images."""
    if not isinstance(classifier, Engine):
        return _rate(classifier.scores, images, seconds)
    rough = _rate(classifier.rough, images, seconds)
    if classifier.exact is None or not classifier.share:
        return rough
    return 1 / (1 / rough + classifier.share / _rate(classifier.exact, images, seconds))


def on_a_thread(make: Callable[[], Made]) -> Made:
    """What `make` gives on a thread of its own, which compiling a model of OpenVINO's has to be.

    It takes the thread's signal stack for its own, and when the model goes it puts back what it found. With two of them
    that may be the stack of one that is gone, and the next Ctrl+C on that thread is a fault; a new thread has none.
    """
    with ThreadPoolExecutor(1) as alone:
        return alone.submit(make).result()


def precision(engine: str) -> str:
    """What the engine of that name computes in, as `TOLERANCE` has it: ``float32``, or ``bf16``, in part at least."""
    return "bf16" if engine in _EXACT else "float32"


def _off(bundle: Bundle, name: str, engine: Engine) -> dict[str, Any]:
    """`bias`, `error` and `share` of the engine called `name`: how far off it is on the golden images.

    The error of each is what is left when the bias of the others is taken off. Measured once, then remembered.
    """
    path = _remembered(bundle, f"off-{name}")
    if not path.is_file():
        images = _turned(bundle)
        scores = bundle.scores(images)
        off = (engine.rough(images) - scores).reshape(_VIEWS, -1, scores.shape[1])
        bias = off.mean(axis=(0, 1))
        # The mean without one image, from that with it
        of_others = bias - (off.mean(axis=0) - bias) / max(off.shape[1] - 1, 1)
        rest = (off - of_others).reshape(scores.shape)
        first_two = np.take_along_axis(rest, np.argsort(scores, axis=1)[:, -2:], axis=1)
        error = _SAFETY * float(np.abs(first_two[:, 1] - first_two[:, 0]).max())
        path.parent.mkdir(parents=True, exist_ok=True)
        share = float(_is_open(bundle.val_scores if len(bundle.val_scores) else scores, error).mean())
        write_whole(path, json.dumps({"bias": bias.tolist(), "error": error, "share": share}).encode())
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found | {"bias": np.array(found["bias"], np.float32)}


def _is_open(scores: NDArray[np.float32], error: float) -> NDArray[np.bool_]:
    """Of scores [N, K] that may be off against each other by `error`: where that would change an answer, [N].

    It would where another class could be first, and where a probability may be another by more than `TOLERANCE`, the
    odds of a class being off by a factor of exp(`error`). That is a quadratic inequality: such a probability is further
    from 0 and from 1 than its lesser root, if it has any, and so is the largest one, then.
    """
    second, first = np.partition(scores, -2, axis=1)[:, -2:].T
    clear: NDArray[np.bool_] = first - second >= error
    limit, spread = TOLERANCE["bf16"], math.expm1(min(error, 50.0))
    rooted = (1 - limit) ** 2 * spread - 4 * limit
    if rooted > 0:
        root = (1 - limit - math.sqrt(rooted / spread)) / 2
        largest = 1 / np.exp(scores - first[:, None]).sum(axis=1)
        clear &= (largest <= root) | (largest >= 1 - root)
    return ~clear  # nor is what is no number


def _must_agree(found: NDArray[np.float32], expected: NDArray[np.float32], precision: str) -> None:
    difference = float(np.abs(found - expected).max())
    if not difference <= _TO_TAKE_PART[precision]:
        raise UsageError(f"probabilities differ by {difference:.2g}, allowed: {_TO_TAKE_PART[precision]:g}")
    if (found.argmax(axis=1) != expected.argmax(axis=1)).any():
        raise UsageError("a golden image gets another class")


def pictures(bundle: Bundle) -> NDArray[np.uint8]:
    """What engines are judged by: the golden images, turned and mirrored, and again as negatives and in the dark.

    The latter are unlike what the network knows, as users' pictures are at times, and rounding shows more there.
    """
    turned = _turned(bundle)
    upright = turned[: len(turned) // _VIEWS]
    return np.concatenate([turned, 255 - upright, upright // 4])


def _turned(bundle: Bundle) -> NDArray[np.uint8]:
    """The golden images, turned and mirrored. Where there are none, noise stands for them."""
    shape = bundle.preprocess
    images = np.array([preprocess(file, shape) for file in bundle.goldens], np.uint8)
    if not len(images):
        images = np.random.default_rng(0).integers(0, 256, (4, shape.size, shape.size, shape.channels), np.uint8)
    turned = np.concatenate([np.rot90(images, turn, axes=(1, 2)) for turn in range(4)])
    return np.concatenate([turned, turned[:, :, ::-1]])


def _rate(score: Scores, images: NDArray[np.uint8], seconds: float) -> float:
    score(images)
    done, start = 0, time.perf_counter()
    while not done or time.perf_counter() - start < seconds:
        score(images)
        done += len(images)
    return done / (time.perf_counter() - start)


def _onnx_file(bundle: Bundle, *, bf16: bool = False) -> Path:
    """The bundle's graph, or that to compute in bfloat16, written once."""
    path = _folder(bundle) / ("graph-bf16.onnx" if bf16 else "graph.onnx")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, to_onnx(program(bundle, bf16=bf16)).SerializeToString())
    return path


def _folder(bundle: Bundle) -> Path:
    """Where what is made of this very bundle, by the present rules, is kept."""
    root = Path(os.environ.get("LENEXT_CACHE") or "~/.cache/lenext").expanduser()
    return root / "engines" / f"{bundle.sha256[:16]}-{_RULES}"


def _remembered(bundle: Bundle, what: str) -> Path:
    """Where `what` was measured of the bundle on this machine is kept."""
    return _folder(bundle) / f"{what}-{_machine()}.json"


def _machine() -> str:
    """The machine and its software, in a few letters."""
    libraries = [name for name in ("torch", "onnxruntime", "openvino") if importlib.util.find_spec(name)]
    facts = [environment()["machine"]["processor"], torch.get_num_threads(), *map(version, libraries)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]


def _require(*libraries: str) -> None:
    if missing := [name for name in libraries if importlib.util.find_spec(name) is None]:
        raise UsageError(f"needs {', '.join(missing)}: pip install 'lenext[export]'")


def _must_be_for_bf16(bundle: Bundle) -> ConvNet:
    if not multiplies_bf16(torch.device("cpu")):
        raise UsageError("this processor does not multiply bfloat16")
    if not isinstance(bundle.classifier, ConvNet):
        raise UsageError("an SVM computes in float32 and float64")
    return bundle.classifier
