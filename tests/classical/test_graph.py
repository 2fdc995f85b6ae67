"""Classical rungs as graphs: exported, and run by other engines, they score as the classifier does."""

import numpy as np
import openvino
import pytest
import torch
from onnxruntime import InferenceSession
from pictures import needs_stamps, stamps
from scipy.special import softmax

from lenext.classical import fit
from lenext.classical.graph import graph
from lenext.data import Preprocess
from lenext.errors import UsageError
from lenext.ladder import resolve
from lenext.ship.engines import on_a_thread

WORDS = {"words": 6, "sample": 2000, "iterations": 3}
REDUCED = WORDS | {"pca": 12}
ONE_SIZE = {"bins": (2,), "step": 2}
PLAIN = ONE_SIZE | {"root": False}

# Every descriptor, encoding and kernel, and what they are combined with, in few rungs: each takes seconds to export
RUNGS = {
    "pixels": ("svm_linear", {}),
    "pixels, RBF": ("svm_rbf", {"svm": {"gamma": 1.0}}),
    "HOG, a map for χ²": ("hog_svm", {"svm": {"kernel": "chi2", "exact": 10}}),
    "words, hard": (
        "bow_sift",
        {"codebook": WORDS, "encoding": {"kind": "hard"}, "descriptors": PLAIN, "svm": {"kernel": "intersection"}},
    ),
    "VLAD": ("vlad_sift", {"codebook": REDUCED, "encoding": {"pyramid": (1, 2)}, "descriptors": ONE_SIZE}),
    "Fisher vector": ("fisher_sift", {"codebook": REDUCED, "descriptors": ONE_SIZE}),
}
IN_OPENVINO = ("pixels, RBF", "words, hard")
IN_COLOUR = {
    "HOG": ("hog_svm", {}),
    "words, softly": (
        "bow_sift",
        {
            "codebook": WORDS,
            "descriptors": {"colour": "opponent", "bins": (4, 6), "step": 8},
            "svm": {"kernel": "exp_chi2", "gamma": 1.0},
        },
    ),
}


def fitted(model, sections, images, labels, folder):
    sections = sections | {"svm": {"c": 3.0} | sections.get("svm", {})}
    return fit(
        resolve("digits", model, sections, sections),
        images,
        labels,
        images[:0],
        labels[:0],
        classes=tuple(map(str, range(labels.max() + 1))),
        preprocess=Preprocess(images.shape[1], images.shape[3]),
        folder=folder,
    ).classifier


def exported(classifier, images):
    module = graph(classifier).eval()
    shapes = {"images": {0: torch.export.Dim("n", min=1)}}
    return torch.export.export(module, (torch.from_numpy(images[:3].copy()),), dynamic_shapes=shapes)


def in_torch(program, folder):
    module = program.module()
    return lambda images: module(torch.from_numpy(images.copy())).numpy()


def in_onnx_runtime(program, folder):
    path = folder / "model.onnx"
    torch.onnx.export(program, dynamo=True, verbose=False).save(path)
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {session.get_inputs()[0].name: images})[0]


def in_openvino(program, folder):
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    model = on_a_thread(lambda: openvino.compile_model(openvino.convert_model(program), "CPU", settings))
    return lambda images: model([images])[0]


def agree(classifier, images, engines, folder):
    program = exported(classifier, images)
    expected = classifier.scores(images)
    for engine in engines:
        scores = engine(program, folder)
        some = np.concatenate([scores(images[:1]), scores(images[1:8]), scores(images[8:])])
        assert some.dtype == np.float32
        assert (some.argmax(1) == expected.argmax(1)).all()
        assert softmax(some, axis=1) == pytest.approx(softmax(expected, axis=1), abs=1e-4)


@pytest.mark.parametrize("name", RUNGS)
def test_every_rung_scores_alike_in_other_engines(name, digits, tmp_path):
    model, sections = RUNGS[name]
    classifier = fitted(model, sections, digits.train.images[:60], digits.train.labels[:60], tmp_path)
    engines = [in_torch, in_onnx_runtime, *([in_openvino] if name in IN_OPENVINO else [])]
    agree(classifier, digits.test.images[:100], engines, tmp_path)


@needs_stamps
@pytest.mark.parametrize("name", IN_COLOUR)
def test_so_do_rungs_in_colour(name, tmp_path):
    model, sections = IN_COLOUR[name]
    pictures = stamps(64, "RGB", every=16)
    # Which third of the stamps, in the order of their folders: something to tell apart
    labels = np.arange(len(pictures)) * 3 // len(pictures)
    classifier = fitted(model, sections, pictures[::2], labels[::2], tmp_path)
    agree(classifier, pictures, [in_torch, in_onnx_runtime], tmp_path)


def test_a_graph_refuses_keypoints(digits, tmp_path):
    sections = {"descriptors": {"kind": "sift"}, "codebook": WORDS}
    classifier = fitted("bow_sift", sections, digits.train.images[:60], digits.train.labels[:60], tmp_path)
    with pytest.raises(UsageError, match=r"descriptors\.kind: given 'sift', accepted .*: hog, dense_sift"):
        graph(classifier)
