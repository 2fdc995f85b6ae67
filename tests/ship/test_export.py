"""Exports predict as the bundle does, from the files' bytes, in programs that know nothing of lenext."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from resnets import small_resnet

from lenext.data import Preprocess, preprocess
from lenext.errors import ParityError, UsageError
from lenext.run import Result
from lenext.ship import export as exporting
from lenext.ship.bundle import load
from lenext.ship.client import Format, read_client, write_client
from lenext.ship.predict import probabilities
from odd import odd_files
from tuxpaint import stamp_files

EVERY_WAY = pytest.mark.parametrize(
    "settings",
    [
        Preprocess(32, 3),
        Preprocess(28, 1, background=0),
        Preprocess(64, 3, fit="squash", interpolation="bicubic"),
        Preprocess(48, 1, fit="crop"),
        Preprocess(56, 3, fit="crop", resize=64),
    ],
    ids=lambda s: f"{s.fit}-{s.size}-{s.channels}",
)


@EVERY_WAY
def test_the_client_sees_what_the_model_was_trained_on(settings: Preprocess, run: Result, tmp_path: Path) -> None:
    exporting.export(load(run.bundle), "torch", tmp_path / "x")
    write_client(tmp_path / "x", "torch", settings)
    client = read_client(tmp_path / "x")
    for name, content in odd_files(stamp_files()[:48:4]).items():
        np.testing.assert_array_equal(client.preprocess(content), preprocess(content, settings), err_msg=name)


@EVERY_WAY
@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
def test_the_client_is_short_and_tidy(to: Format, settings: Preprocess, tmp_path: Path) -> None:
    write_client(tmp_path, to, settings)
    file = tmp_path / "predict.py"
    assert sum(bool(line.strip()) for line in file.read_text().splitlines()) <= 45
    options = ["--isolated", "--line-length=120", "--quiet", str(tmp_path)]
    for command in (["format", "--check"], ["check", "--select=E,F,I,UP,B,RET,SIM,D2"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, *options], capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch"])
def test_an_export_answers_as_the_bundle(to: Format, run: Result, tmp_path: Path) -> None:
    bundle = load(run.bundle)
    made = exporting.export(bundle, to, tmp_path / to, validation=exporting.images_of(bundle, "digits", "val"))
    assert (made.goldens, made.validation_images) == (8, 179)
    assert made.difference < 1e-4
    files = odd_files(stamp_files()[:48:4])
    expected = bundle.answer([*files], np.stack([preprocess(file, bundle.preprocess) for file in files.values()]))
    for some in ([*files.values()], [*files.values()][:1]):  # any number of pictures
        shares, outliers = read_client(made.folder).predict(some)
        wanted = expected[: len(some)]
        np.testing.assert_allclose(shares, [a.probabilities for a in wanted], atol=1e-5)
        np.testing.assert_allclose(outliers, [a.outlier for a in wanted], atol=2 / len(bundle.val_labels))


def test_the_client_needs_neither_lenext_nor_torch(run: Result, stamps: Path, tmp_path: Path) -> None:
    bundle = load(run.bundle)
    exporting.export(bundle, "onnx", tmp_path / "onnx", abstain=0.8)
    picture = tmp_path / "seven.png"
    picture.write_bytes(bundle.goldens[0])
    stamp = next(stamps.rglob("*.png"))
    program = (
        "import sys, runpy; sys.modules['lenext'] = sys.modules['torch'] = None;"
        f"sys.argv = ['predict.py', {str(picture)!r}, {str(stamp)!r}]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "onnx", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    answers = list(bundle.predict([picture, stamp], abstain=0.8))
    assert [(row[0], row[1]) for row in rows] == [(a.path, a.label or "?") for a in answers]
    assert answers[0].label is not None


def test_the_graph_is_of_bytes_and_has_no_batch_norm(tmp_path: Path) -> None:
    bundle = small_resnet()
    exporting.export(bundle, "onnx", tmp_path / "onnx")
    graph = onnx.load(tmp_path / "onnx" / "model.onnx").graph
    assert [(i.name, i.type.tensor_type.elem_type) for i in graph.input] == [("images", onnx.TensorProto.UINT8)]
    assert [d.dim_param or d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == ["N", 32, 32, 3]
    assert [output.name for output in graph.output] == ["probabilities", "scores", "outlier"]
    kinds = {node.op_type for node in graph.node}
    assert "Conv" in kinds
    assert "BatchNormalization" not in kinds
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    whole = exporting.export(bundle, "torch", tmp_path / "torch")  # has none of what was folded either
    assert whole.bytes < 1.3 * (tmp_path / "onnx" / "model.onnx").stat().st_size
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    np.testing.assert_allclose(
        session.run(["probabilities"], {"images": images})[0], probabilities(bundle.scores(images)), atol=1e-5
    )


def test_what_does_not_agree_is_not_left_behind(run: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load(run.bundle)
    with monkeypatch.context() as patch:
        # A decoder that is off by a few gray values, as others' are
        def coarse(folder: Path, to: Format, settings: Preprocess) -> None:
            write_client(folder, to, settings)
            file = folder / "predict.py"
            honest = file.read_text()
            file.write_text(honest.replace("np.asarray(image)", "(np.asarray(image) // 8 * 8)"))

        patch.setattr(exporting, "write_client", coarse)
        with pytest.raises(ParityError, match="predicts otherwise than the bundle: of 8 pictures") as caught:
            exporting.export(bundle, "torch", tmp_path / "x")
    assert caught.value.exit_code == 5
    assert list(tmp_path.iterdir()) == []
    exporting.export(bundle, "torch", tmp_path / "x")
    with pytest.raises(UsageError, match="exists; accepted: a new folder"):
        exporting.export(bundle, "torch", tmp_path / "x")


def test_eight_bits_cost_what_the_paired_test_says(run: Result, tmp_path: Path) -> None:
    bundle = load(run.bundle)
    validation = exporting.images_of(bundle, "digits", "val")
    calibration = exporting.to_calibrate_on(exporting.images_of(bundle, "digits", "train").subset.images)
    assert len(calibration) == 300
    made = exporting.export(
        bundle, "onnx", tmp_path / "int8", validation=validation, calibration=calibration, max_drop=0.03
    )
    whole = exporting.export(bundle, "onnx", tmp_path / "whole", validation=validation)
    assert made.change is not None
    assert made.bytes < 0.5 * whole.bytes
    model = onnx.load(tmp_path / "int8" / "model.onnx")
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) >= 5
    shares = onnxruntime.InferenceSession(tmp_path / "int8" / "model.onnx").run(
        None, {"images": validation.subset.images}
    )[0]
    labels = validation.subset.labels
    before, after = bundle.scores(validation.subset.images).argmax(axis=1), shares.argmax(axis=1)
    assert made.change.value == pytest.approx((after == labels).mean() - (before == labels).mean())
    assert made.change.low <= made.change.value <= made.change.high
    with pytest.raises(ParityError, match=r"int8 costs .* points of accuracy on 179 validation images"):
        exporting.export(bundle, "onnx", tmp_path / "no", validation=validation, calibration=calibration, max_drop=-1.0)
    assert not (tmp_path / "no").exists()
    with pytest.raises(UsageError, match="int8: given torch, accepted: onnx, openvino"):
        exporting.export(bundle, "torch", tmp_path / "t", validation=validation, calibration=calibration)
