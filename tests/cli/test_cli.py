"""The command line: what it accepts, what it prints where, and how it exits."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import lenext.models
from lenext.cli import VERBS, app, main
from lenext.run import Result

COMMAND = Path(sys.executable).with_name("lenext")


class Output(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document that stdout is."""
        return json.loads(self.out)


Cli = Callable[..., Output]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs `lenext` in this process, 80 columns wide."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: str | Path) -> Output:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        return Output(int(left.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Class folders of plain pictures, in two colours that anything can learn."""
    noise = np.random.default_rng(0)
    for label, colour in (("[red]cat", 60), ("dog é", 180)):
        (tmp_path / "my [bold] photos" / label).mkdir(parents=True)
        for i in range(12):
            pixels = noise.integers(colour, colour + 40, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "my [bold] photos" / label / f"{i}.jpg")
    return tmp_path / "my [bold] photos"


def one_line(err: str) -> str:
    """The error's line, the last on stderr; there is no traceback."""
    assert "Traceback" not in err
    *_, line = err.splitlines()
    assert line.startswith("lenext: ")
    return line


# ---- the verbs and their options: whoever changes these, changes what users type ----

FROZEN = {
    "check": ["--debug", "--json", "--labels", "--max-bad"],
    "pack": ["--debug", "--encoding", "--json", "--max-bad", "--out", "--quality", "--side"],
    "train": [
        "--budget",
        "--config",
        "--debug",
        "--epochs",
        "--json",
        "--loss",
        "--model",
        "--out",
        "--ray",
        "--seed",
        "--set",
        "--storage",
        "--weights",
        "--workers",
    ],
    "resume": ["--debug", "--json"],
    "compare": [
        "--budget",
        "--config",
        "--debug",
        "--epochs",
        "--json",
        "--max-latency",
        "--max-macs",
        "--max-size",
        "--models",
        "--out",
        "--ray",
        "--seed",
        "--seeds",
        "--set",
        "--workers",
    ],
    "eval": ["--debug", "--goldens", "--json", "--split"],
    "predict": ["--abstain", "--csv", "--debug", "--engine", "--json", "--out", "--ray", "--workers"],
    "explain": ["--class", "--debug", "--json", "--out"],
    "export": ["--abstain", "--data", "--debug", "--int8", "--json", "--max-drop", "--out", "--to"],
    "serve": [
        "--abstain",
        "--api-key",
        "--batch",
        "--debug",
        "--engine",
        "--host",
        "--json",
        "--max-file",
        "--max-pixels",
        "--max-request",
        "--port",
        "--queue",
        "--timeout",
    ],
    "report": ["--debug", "--json"],
    "models": ["--debug", "--json"],
    "cost": [
        "--budget",
        "--channels",
        "--classes",
        "--data",
        "--debug",
        "--device",
        "--epochs",
        "--flop-rate",
        "--images",
        "--json",
        "--layers",
        "--on",
        "--price",
        "--probe",
        "--set",
        "--size",
        "--watts",
    ],
    "lecture": ["--all", "--debug", "--json", "--out", "--quick"],
    "bench": [
        "--batch",
        "--channels",
        "--classes",
        "--config",
        "--debug",
        "--engine",
        "--json",
        "--repeats",
        "--seconds",
        "--set",
        "--size",
    ],
}


def test_the_verbs_and_their_options_are_these() -> None:
    assert list(VERBS) == list(FROZEN)
    for verb, options in FROZEN.items():
        arguments = app[verb].assemble_argument_collection(default_parameter=app.default_parameter)
        names = {name for argument in arguments for name in argument.names}
        assert sorted(name for name in names if name.startswith("-")) == options, verb


# ---- help ----


@pytest.mark.parametrize("verb", FROZEN)
def test_the_help_of_a_verb_shows_its_own_example(verb: str, cli: Cli) -> None:
    code, out, err = cli(verb, "--help")
    assert (code, err) == (0, "")
    assert f"Example: lenext {verb}" in out
    assert "[default: False]" not in out
    assert max(map(len, out.splitlines())) <= 80
    for option in FROZEN[verb]:
        assert option in out


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_the_help_lists_every_verb(words: list[str], cli: Cli) -> None:
    code, out, err = cli(*words)
    assert (code, err) == (0, "")
    assert "Example: lenext compare digits" in out
    for verb in FROZEN:
        assert re.search(rf"^│ {verb} +\w+", out, re.MULTILINE), verb


def test_version(cli: Cli) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", cli("--version").out)


HEAVY = ("numpy", "torch", "sklearn", "scipy", "PIL", "altair", "jinja2", "pyarrow")


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["trian"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys\n"
        "from lenext.cli import main\n"
        f"try: main({words!r})\n"
        f"finally: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.stderr.splitlines()[-1] == "[]"


# ---- what is wrong is said in one line, with the right exit code ----

WRONG: dict[str, tuple[int, str]] = {
    "trian digits": (2, '"train"'),
    "train digits --modle lenet": (2, "--model"),
    "train digits more --model lenet": (2, "one argument too many: more"),
    "train digits --model lenet_rel": (2, "'lenet_relu'"),
    "train digits": (2, "no model given; accepted: softmax"),
    "train": (2, "no data given"),
    "train --model lenet": (2, "no data given"),
    "train digts --model lenet": (3, "'digits'"),
    "train digits --model lenet --epochs many": (2, "--epochs"),
    "train digits --model lenet --epochs -1": (2, "epochs: given -1"),
    "train digits --model lenet --epochs nan": (2, "epochs: given nan"),
    "train digits --model lenet --epochs 1 --budget 1m": (2, "both epochs and budget"),
    "train digits --model lenet --budget soon": (2, "'soon'"),
    "train digits --model lenet --budget 0": (2, "'0'"),
    "train digits --model lenet --seed x": (2, "--seed"),
    "train digits --model lenet --config none.yaml": (2, "none.yaml"),
    "train digits --model lenet --set recipe": (2, "KEY=VALUE"),
    "train digits --model lenet --set recipe.lrr=1": (2, "did you mean"),
    "train digits --model lenet --set recipe.lr=fast": (2, "recipe.lr: given 'fast', accepted: a number"),
    "train digits --model lenet --set recipe.augment=1": (2, "recipe.augment"),
    "train digits --model lenet --set recipe.augment.flip=1": (2, "recipe.augment.flip: given 1"),
    "train digits --model lenet --set recipe.optimizer=adam": (2, "accepted: sgd, adamw, muon"),
    "train digits --model lenet --set data=1": (2, "data: expected keys below it"),
    "train digits --model lenet --set data.channels=2": (2, "data.channels: given 2"),
    "train digits --model lenet --set data.size=1.5": (2, "data.size: given 1.5"),
    "train digits --model lenet --set svm.c=1": (2, "svm: lenet does not read"),
    "train digits --model svm_linear --set recipe.lr=1": (2, "recipe: svm_linear does not read"),
    "train digits --model svm_linear --loss focal": (2, "recipe: svm_linear does not read"),
    "train digits --model lenet --loss hinge": (2, 'Choose from: "cross_entropy", "focal"'),
    "compare": (2, "no data given"),
    "compare digits --models ,": (2, "no models given"),
    "compare digits --models softmx": (2, "'softmax'"),
    "compare digits --models softmax@2,svm_linear@2": (2, "svm_linear has no width"),
    "compare digits --max-size big": (2, "given 'big' as an amount, accepted: 5000B, 800kB, 5MB, 1.5GB"),
    "compare digits --max-macs 5 --models softmax": (2, "softmax: 7,840 multiply-adds, more than 5"),
    "compare digits --seeds 0": (2, "seeds: given 0, accepted: 1 or more"),
    "compare digits --max-latency 0": (2, "max_latency_ms: given 0, accepted: more than 0"),
    "compare digts": (3, "'digits'"),
    "check": (2, "DATA"),
    "check digts": (3, "'digits'"),
    "resume": (2, "RUN"),
    "resume none": (2, "not a run's folder"),
    "report none": (2, "neither a run"),
    "eval": (2, "BUNDLE"),
    "eval none.lenext digits": (3, "none.lenext: no such file"),
    "eval . digits": (3, "is a folder"),
    "eval none.lenext digits --split some": (2, "--split"),
    "predict none.lenext x.png": (3, "none.lenext: no such file"),
    "predict none.lenext": (2, "no pictures given"),
    "explain none.lenext": (2, "no pictures given"),
    "check digits --labels nowhere": (2, "nowhere is not a run's folder"),
    "models more": (2, "one argument too many: more"),
    "bench": (2, "WHAT"),
    "bench run lenet": (2, 'Choose from: "train", "infer", "data"'),
    "bench train svm_linear": (2, "bench: given svm_linear, accepted: a network"),
    "bench infer lenet --repeats 0": (2, "accepted: 1 or more of each"),
    "bench data digits --classes 3": (2, "given --channels or --classes, accepted: with train and infer"),
    "bench data nowhere": (3, "no such folder, manifest or data set: nowhere"),
    "cost resnet20 --epochs 3": (2, "--epochs: accepted together with --data or --images"),
    "cost resnet20 --images 100 --on abacus": (2, "device: given 'abacus', accepted: t4, v100"),
    "cost resnet20 --images 100 --flop-rate fast": (2, "given 'fast' as an amount, accepted"),
    "cost resnet5": (2, "unknown model 'resnet5'; did you mean 'resnet56'?"),
    "cost svm_liner": (2, "did you mean 'svm_linear'?"),
    "cost lenet --size 8": (2, "lenet: given images of 8 px, accepted: 16 px or more"),
    "cost lenet --channels 0": (2, "channels: given 0, accepted: 1 or more"),
    "cost lenet --size big": (2, "--size"),
    "cost resnet50 --set model.widht=1": (2, "unknown key 'model.widht'; did you mean 'model.width'?"),
    "cost resnet50 --set model.width=0": (2, "model.width: given 0"),
    "cost resnet50 --set model.size=32": (2, "unknown key 'model.size'"),
    "cost resnet50 --set model.name=lenet": (2, "accepted: settings of the model, such as model.width=0.5"),
    "cost resnet50 --set recipe.lr=1": (2, "accepted: settings of the model, such as model.width=0.5"),
    "cost svm_linear --set model.width=2": (2, "svm_linear: given width; accepted: classes, channels, size"),
}


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", WRONG)
def test_errors_are_one_line_on_stderr(words: str, cli: Cli, elsewhere: Path) -> None:
    expected, message = WRONG[words]
    code, out, err = cli(*words.split())
    assert (code, out) == (expected, "")
    assert message in one_line(err)
    assert not list(elsewhere.glob("runs/*")), "a run that could not begin leaves no folder"


@pytest.mark.parametrize("words", ["trian", "check digts", "eval none.lenext digits", "compare digits --models x"])
def test_with_json_an_error_is_a_document_too(words: str, cli: Cli, elsewhere: Path) -> None:
    output = cli(*words.split(), "--json")
    assert output.document == {"error": one_line(output.err).removeprefix("lenext: "), "exit_code": output.code}


def test_debug_shows_the_traceback(cli: Cli, elsewhere: Path) -> None:
    code, out, err = cli("eval", "none.lenext", "digits", "--debug")
    assert (code, out) == (3, "")
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("lenext: none.lenext: no such file")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError(), 4, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 4, "out of memory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "x.png"), 3, "x.png: Permission denied"),
        (ZeroDivisionError("division by zero"), 1, "internal error, please report it: ZeroDivisionError"),
    ],
)
def test_what_is_not_ours_is_one_line_too(
    error: BaseException, code: int, message: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("lenext.ladder.overview", fail)
    output = cli("models")
    assert output.code == code
    assert message in one_line(output.err)


def test_an_existing_folder_is_not_written_to(cli: Cli, elsewhere: Path, run: Result) -> None:
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "thesis.txt").write_text("")
    (elsewhere / "file").write_text("")
    for out, message in (("mine", "exists already"), ("file", "cannot write"), ("/proc/none/x", "cannot write")):
        output = cli("train", "digits", "--model", "softmax", "--out", out)
        assert output.code == 2
        assert message in one_line(output.err)
    assert "resume" not in cli("train", "digits", "--model", "softmax", "--out", "mine").err
    assert f"lenext resume {run.root}" in cli("train", "digits", "--model", "softmax", "--out", run.root).err


def test_a_size_that_the_model_cannot_take(cli: Cli, elsewhere: Path) -> None:
    output = cli("train", "digits", "--model", "lenet", "--set", "data.size=8")
    assert output.code == 2
    assert "lenet: given images of 8 px, accepted: 16 px or more" in one_line(output.err)


def test_a_finished_run_is_not_resumed(cli: Cli, run: Result) -> None:
    output = cli("resume", run.root)
    assert output.code == 2
    assert f"has finished; `lenext report {run.root}`" in one_line(output.err)


# ---- the verbs at work ----


def test_models(cli: Cli) -> None:
    code, out, _ = cli("models")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    rows = {row["model"]: row for row in cli("models", "--json").document["models"]}
    assert rows.keys() >= {"svm_linear", *lenext.models.VARIANTS}
    for name, row in rows.items():
        assert re.search(rf"^{name} +{row['year']} +{row['shape']['size']} ", out, re.MULTILINE)
        assert row["flops"] == 2 * row["macs"] > 0
        published = row["published"] or {}
        if published.get("params"):
            assert published["params"] == row["params"]
            assert round(row["macs"] / 1e9, 1) == round(published["gmacs"], 1)
    assert rows["lenet"]["params"] == 61706  # LeCun et al. 1998, with every map of C3 connected
    assert rows["lenet"]["published"] is None
    assert rows["resnet50"]["shape"] == {"classes": 1000, "channels": 3, "size": 224}
    assert rows["resnet50"]["published"] == {
        "params": 25_557_032, "gmacs": 4.089, "accuracy": "ImageNet 0.761",
        "source": "torchvision, weights IMAGENET1K_V1",
    }  # fmt: skip
    assert rows["svm_linear"]["published"] == {
        "params": None, "gmacs": None, "accuracy": "Fashion-MNIST 0.836", "source": "its README, linear SVM",
    }  # fmt: skip
    assert re.search(r"^resnet50 +2015 +224 +25.6 M +4.1 G +25.6 M +4.1 G +ImageNet 0.761 *$", out, re.MULTILINE)


def test_cost(cli: Cli) -> None:
    code, out, err = cli("cost", "lenet")
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    for expected in (
        "lenet, 10 classes, for one image of 1×28×28",
        "parameters 61,706 61.7 k",
        "multiply-adds (MACs) 416,520 417 k",
        "FLOPs, two per MAC 833,040 833 k",
        "not counted as multiply-adds: sigmoid 4, avg_pool2d 2",
    ):
        assert expected in lines
    assert "parameters in training" not in out
    assert " parameters in training " in cli("cost", "googlenet").out


@pytest.mark.parametrize("model", ["lenet", "resnet50", "vgg16_bn", "googlenet", "inception_v4"])
def test_cost_of_every_layer_fits_into_80_columns(model: str, cli: Cli) -> None:
    code, out, _ = cli("cost", model, "--layers")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    layers = cli("cost", model, "--json").document["layers"]
    for layer in layers:  # a name is never broken in two
        shape = "×".join(map(str, layer["shape"]))
        assert re.search(rf"^{re.escape(layer['name'])} +[A-Z]\w+ +{shape}( |$)", out, re.MULTILINE), layer
    assert ("–: takes part in training only" in out) == (model == "googlenet")


def test_cost_foretells_training(cli: Cli) -> None:
    code, out, _ = cli("cost", "resnet20", "--images", "50000", "--epochs", "10", "--budget", "1h", "--price", "3",
                       "--watts", "100", "--flop-rate", "0.15T")  # fmt: skip
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    for words in ("a step of 64 images", "the whole run, 10 epochs", "memory it takes", "money", "kWh", "epochs in 1h"):
        assert words in out
    document = cli("cost", "resnet20", "--images", "50000", "--epochs", "10", "--json").document
    for name in ("step_seconds", "epoch_seconds", "seconds", "peak_memory_bytes"):
        low, high = document[f"{name}_interval"]
        assert low < document[name] < high
    assert document["seconds"] > 10 * document["epoch_seconds"] * 0.99
    assert document["epochs"] == 10
    assert document["money"] is None
    reckoned = cli("cost", "resnet20", "--images", "1000000", "--flop-rate", "12T", "--json").document
    assert reckoned["seconds_at_flop_rate"] == pytest.approx(reckoned["macs"] * 1e6 / 12e12)


def test_cost_of_the_whole_ladder_is_a_table(cli: Cli) -> None:
    code, out, _ = cli("cost", "--images", "1000", "--size", "12")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert {"softmax", "resnet152", "svm_linear"} <= {line.split()[0] for line in out.splitlines() if line.strip()}
    assert "lenet: given images of 12 px" in out


def test_cost_prints_one_document(cli: Cli) -> None:
    output = cli("cost", "resnet50", "--size", "64", "--channels", "1", "--classes", "10",
                 "--set", "model.width=0.5", "--set", "model.norm=group", "--json")  # fmt: skip
    assert (output.code, output.err) == (0, "")
    document = output.document
    assert list(document) == ["model", "shape", "params", "training_params", "macs", "flops", "inference_bytes",
                              "training_bytes", "uncounted", "layers"]  # fmt: skip
    assert document["shape"] == {"classes": 10, "channels": 1, "size": 64}
    network = lenext.models.build("resnet50", width=0.5, norm="group", classes=10, channels=1, size=64)
    assert document["params"] == sum(p.numel() for p in network.parameters())
    assert document["uncounted"]["group_norm"] == 53
    assert {tuple(layer) for layer in document["layers"]} == {
        ("name", "kind", "shape", "params", "macs", "flops", "output_bytes", "kept_bytes")
    }
    for name in ("params", "macs", "flops"):
        assert sum(layer[name] for layer in document["layers"]) == document[name]
    classical = cli("cost", "svm_linear", "--json").document
    assert (classical["params"], classical["inference_bytes"]) == (7850, None)
    assert [(layer["name"], layer["macs"]) for layer in classical["layers"]] == [("pixels", 0), ("SVM", 7840)]
    more = cli("cost", "bow_sift", "--set", "codebook.words=1024", "--json").document
    assert more["params"] == 1024 * 128 + 10 * 21 * 1024 + 10


def test_check(cli: Cli, photos: Path) -> None:
    (photos / "dog é" / "[bold]x.jpg").write_bytes(b"")
    code, out, _ = cli("check", photos)
    assert code == 0
    for text in ("[red]cat", "dog é", "my [bold] photos: 24 usable images in 2 classes", "[bold]x.jpg: zero bytes"):
        assert text in out
    document = cli("check", photos, "--json").document
    assert document["classes"] == {"[red]cat": 12, "dog é": 12}
    assert document["problems"][0]["kind"] == "zero bytes"


def test_pack_and_what_is_done_with_a_pack(cli: Cli, photos: Path, elsewhere: Path) -> None:
    (photos / "dog é" / "[bold]x.jpg").write_bytes(b"")
    code, out, _ = cli("pack", photos, "--out", "my.pack", "--encoding", "raw", "--side", "16")
    assert code == 0
    for text in ("my.pack: 24 images in 2 classes, 21.9 kB in 1 part", "left out: dog é/[bold]x.jpg: zero bytes"):
        assert text in out
    document = cli("pack", photos, "--out", "my.pack", "--encoding", "raw", "--side", "16", "--json").document
    assert (document["images"], document["side"], document["bytes"]) == (24, 16, 24 * 16 * 19 * 3)
    assert cli("check", "my.pack", "--json").document["sizes"]["height"]["max"] == 16
    code, _, err = cli("pack", "digits", "--out", "my.pack")
    assert code == 2
    assert one_line(err) == "lenext: my.pack is a pack of other images or settings; give another --out"
    code, _, err = cli("train", "my.pack", "--model", "softmax", "--epochs", "1", "--set", "data.size=12")
    assert code == 0, err
    (root,) = Path("runs").iterdir()
    assert root.name == "softmax-my.pack"
    assert cli("eval", root / "best.lenext", photos, "--json").document["split"] == "test"  # what was held out
    Path("my.pack/pack.json").unlink()
    code, _, err = cli("train", "my.pack", "--model", "softmax", "--epochs", "1")
    assert code == 3
    assert "my.pack is an unfinished pack" in one_line(err)


@pytest.mark.parametrize("json_", [True, False])
def test_check_exits_with_3_where_too_many_files_are_bad(json_: bool, cli: Cli, photos: Path) -> None:
    for i in range(4):
        (photos / "dog é" / f"bad {i}.jpg").write_bytes(b"")
    output = cli("check", photos, *["--json"] * json_)
    assert output.code == 3
    assert "4 of 28 files cannot be used" in one_line(output.err)
    if json_:
        assert len(output.document["problems"]) == 4  # one document, the report
    assert cli("check", photos, "--max-bad", "0.5").code == 0


def test_train_and_everything_after_it(cli: Cli, photos: Path, elsewhere: Path) -> None:
    """A folder with odd names, from training to prediction."""
    code, out, err = cli("train", photos, "--model", "softmax", "--epochs", "2", "--set", "data.size=12")
    assert code == 0, err
    (root,) = Path("runs").iterdir()
    assert root.name == "softmax-my--bold--photos"
    assert f"bundle  {root}/best.lenext" in out
    assert f"lenext predict {root}/best.lenext PICTURES" in out
    assert "Traceback" not in err
    assert json.loads((root / "summary.json").read_text())["model"] == "softmax"

    before = (root / "report.html").read_bytes()
    (root / "report.html").unlink()
    assert cli("report", root).out == f"{root}/report.html\n"
    assert len((root / "report.html").read_bytes()) == pytest.approx(len(before), rel=0.01)
    assert cli("report", root, "--json").document == {"report": f"{root}/report.html"}

    code, out, _ = cli("eval", root / "best.lenext", photos, "--goldens")
    assert code == 0
    assert "golden images predicted as when the bundle was made" in out
    assert "[red]cat" in out
    assert max(map(len, out.splitlines())) <= 80

    code, out, err = cli("predict", root / "best.lenext", photos)
    assert (code, err) == (0, "")
    assert [line.count("\t") for line in out.splitlines()] == [2] * 24
    assert out.startswith(f"{photos}/[red]cat/0.jpg\t")


def test_train_prints_one_document(cli: Cli, elsewhere: Path) -> None:
    output = cli("train", "digits", "--model", "softmax", "--epochs", "1", "--out", "a run", "--json")
    assert output.code == 0
    document = output.document
    assert document["run"] == "a run"
    assert Path(document["bundle"]).is_file()
    assert document["next"] == "lenext predict 'a run/best.lenext' PICTURES"
    assert document["accuracy_interval"][0] < document["accuracy"] < document["accuracy_interval"][1]


def test_settings_from_a_file_and_from_the_command_line(cli: Cli, elsewhere: Path) -> None:
    Path("run.yaml").write_text(
        "data: {source: digits, size: 16}\nmodel: {name: softmax}\nepochs: 3\nrecipe: {lr: 1e-3, batch_size: 64}\n"
    )
    output = cli("train", "--config", "run.yaml", "--epochs", "1", "--set", "recipe.lr=0.5", "--out", "r", "--json")
    assert output.code == 0
    text = Path("r/args.yaml").read_text()
    for line in ("source: digits", "size: 16", "name: softmax", "epochs: 1.0", "lr: 0.5", "batch_size: 64"):
        assert line in text


def test_eval_prints_one_document(cli: Cli, run: Result) -> None:
    document = cli("eval", run.bundle, "digits", "--json").document
    assert document["accuracy"] == run.accuracy
    assert document["split"] == "test"
    assert cli("eval", run.bundle, "--goldens", "--json").document["goldens_verified"] == 8
    assert cli("eval", run.bundle).code == 2


def test_eval_exits_with_5_where_the_bundle_has_changed(cli: Cli, run: Result, tmp_path: Path) -> None:
    tensors = load_file(run.bundle)
    tensors["golden_scores"] += 1
    with safe_open(run.bundle, framework="np") as file:
        save_file(tensors, tmp_path / "x.lenext", metadata=file.metadata())
    output = cli("eval", tmp_path / "x.lenext", "--goldens")
    assert output.code == 5
    assert "golden images" in one_line(output.err)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        Image.effect_noise((20, 20), 60).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    return tmp_path / "in"


def test_predict_goes_on_after_a_bad_file(cli: Cli, run: Result, pictures: Path) -> None:
    code, out, err = cli("predict", run.bundle, pictures)
    assert code == 3
    assert [line.split("\t")[0] for line in out.splitlines()] == [f"{pictures}/a.png", f"{pictures}/b.png"]
    assert re.fullmatch(r".*\t\d\t[<>\d. ]+ %", out.splitlines()[0])
    assert err.splitlines()[0] == f"{pictures}/bad.png: zero bytes"
    assert "1 of 3 pictures cannot be read; the rest are predicted" in one_line(err)


def test_predict_prints_one_document_with_bad_files_too(cli: Cli, run: Result, pictures: Path) -> None:
    output = cli("predict", run.bundle, pictures, "--json")
    assert output.code == 3
    document = output.document
    assert document["classes"] == list("0123456789")
    assert [p["error"] for p in document["predictions"]] == [None, None, "zero bytes"]
    assert sum(document["predictions"][0]["probabilities"]) == pytest.approx(1, abs=1e-5)


def test_explain_writes_a_picture_for_each_and_goes_on_after_a_bad_file(
    cli: Cli, run: Result, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "some" / "explained"
    code, printed, err = cli("explain", run.bundle, pictures, "--out", out)
    rows = [line.split("\t") for line in printed.splitlines()]
    assert code == 3
    assert "1 of 3 pictures cannot be read; the rest are explained" in one_line(err)
    assert [Path(row[3]) for row in rows] == sorted(out.glob("*.png"))
    predicted = cli("predict", run.bundle, pictures, "--engine", "torch")  # which is what is explained
    assert [row[:3] for row in rows] == [line.split("\t") for line in predicted.out.splitlines()]
    for row in rows:
        with Image.open(row[3]) as overlay:
            assert (overlay.mode, overlay.size) == ("RGB", (224, 224))


def test_explain_overwrites_nothing_and_tells_names_apart(
    cli: Cli, run: Result, pictures: Path, tmp_path: Path
) -> None:
    first = sorted(path for path in pictures.iterdir() if path.stat().st_size)[0]
    twin = tmp_path / "other" / first.name
    twin.parent.mkdir()
    twin.write_bytes(first.read_bytes())
    before = first.read_bytes()
    output = cli("explain", run.bundle, first, twin, "--class", "3", "--out", first.parent, "--json")
    rows = output.document["explanations"]
    assert output.code == 0
    assert len({row["overlay"] for row in rows}) == 2
    assert first.read_bytes() == before
    assert {row["class"] for row in rows} == {"3"}
    assert {row["method"] for row in rows} == {"Grad-CAM"}
    assert all(Path(row["overlay"]).is_file() and row["probability"] >= row["class_probability"] for row in rows)
    assert cli("explain", run.bundle, first, "--class", "three").code == 2


def test_predict_writes_a_table(cli: Cli, run: Result, pictures: Path, tmp_path: Path) -> None:
    code, out, err = cli("predict", run.bundle, pictures, "--csv", tmp_path / "answers.csv")
    assert (code, out) == (3, f"answers  {tmp_path}/answers.csv, 3 pictures\n")
    assert one_line(err).endswith(
        f"1 of 3 pictures cannot be read; the rest are predicted; {tmp_path}/answers.csv says why"
    )
    with (tmp_path / "answers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "probability", "outlier", "abstained", "error", *"0123456789"]
    assert [row["error"] for row in rows] == ["", "", "zero bytes"]
    assert float(rows[0][rows[0]["label"]]) == float(rows[0]["probability"])
    assert rows[2]["label"] == rows[2]["0"] == ""
    output = cli("predict", run.bundle, pictures, "--out", tmp_path / "none" / "answers.csv")
    assert output.code == 2
    assert "there is no folder" in one_line(output.err)


def test_predict_writes_what_it_is_asked_for_and_counts_it(
    cli: Cli, run: Result, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.parquet"
    assert cli("predict", run.bundle, pictures, "--out", out, "--workers", "1", "--json").document == {
        "out": str(out), "pictures": 3, "unreadable": 1, "abstained": 0,
    }  # fmt: skip
    assert out.read_bytes()[:4] == b"PAR1"
    output = cli("predict", run.bundle, pictures, "--workers", "2")
    assert output.code == 2
    assert "--workers: given without --out, accepted: with it" in one_line(output.err)


# ---- as processes ----


def test_two_runs_that_start_at_once_have_a_folder_each(tmp_path: Path) -> None:
    command = [COMMAND, "train", "digits", "--model", "softmax", "--epochs", "1"]
    both = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["softmax-digits", "softmax-digits-2"]


@pytest.mark.parametrize("words", [["models"], ["models", "--json"]])
def test_a_reader_that_has_seen_enough_is_no_error(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        ended = subprocess.run([COMMAND, *words], stdout=pipe, stderr=subprocess.PIPE, timeout=60)
    assert ended.stderr == b""


@pytest.mark.parametrize(
    ("model", "phase", "says"),
    [
        ("softmax", "looking at", "lenext: interrupted"),
        ("svm_linear", "fitting on", "lenext: interrupted; `lenext resume x` continues"),
        ("lenet", "training about", "lenext: stopped at epoch [0-9.]+; `lenext resume x` continues"),
    ],
)
def test_an_interrupt_ends_with_130_in_every_phase(model: str, phase: str, says: str, tmp_path: Path) -> None:
    data = "digits" if model == "lenet" else "fashion-mnist"
    if data != "digits" and not Path("/usr/share/datasets/fashion-mnist").is_dir():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    command = [COMMAND, "train", data, "--model", model, "--out", "x"]
    command += ["--epochs", "1000"] if model == "lenet" else []
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if phase in line:
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130, rest
    assert re.search(f"^{says}$", rest, re.MULTILINE)
    assert "Traceback" not in rest
    assert (tmp_path / "x").exists() == (model != "softmax")


def test_the_line_of_progress_fits_into_80_columns() -> None:
    from lenext.cli.progress import describe
    from lenext.training import Progress

    long = Progress(128.41, 200.0, 0.0004, 0.9944, 11789.0, 0.219, 78.0)
    assert describe(long) == ("epoch 128.4/200  loss 0.000  val 99.4 %  11,789 img/s  22% of peak  1.3 min left")
    assert len(describe(long)) == 80
    assert describe(Progress(0.1, 7.24, 2.5, None, 321.0, 0.005, 0.0)) == (
        "epoch 0.1/7.2  loss 2.500  321 img/s  0.5% of peak  0 s left"
    )
