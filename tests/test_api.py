"""The public names, and that asking for them is the only thing that loads them."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lenext
from lenext.data import Dataset
from lenext.run import Result


def test_the_public_names_are_these() -> None:
    assert dir(lenext) == [
        "add_rung",
        "build",
        "check",
        "check_labels",
        "compare",
        "cost",
        "explain",
        "load",
        "pack",
        "pretrained",
        "resume",
        "train",
    ]
    for name in dir(lenext):
        public = getattr(lenext, name)
        assert isinstance(public, Callable)  # type: ignore[arg-type]
        assert public.__name__ == name
        assert public.__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'lenext' has no attribute 'trian'"):
        lenext.trian  # noqa: B018


def loaded_by(script: str) -> set[str]:
    """The modules in a fresh Python after `script`."""
    script += "\nimport sys; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(ended.stdout.split())


def test_importing_lenext_loads_nothing() -> None:
    loaded = loaded_by("import lenext")
    assert {name for name in loaded if name.startswith("lenext")} == {"lenext"}
    assert not loaded & {"numpy", "torch", "PIL", "sklearn", "yaml", "cyclopts", "rich"}


def test_functions_stay_functions_when_the_rooms_are_imported() -> None:
    """A room named `train` would hide the function as soon as anything imported it."""
    script = """
import lenext, pkgutil, importlib
for module in pkgutil.walk_packages(lenext.__path__, "lenext."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert all(callable(getattr(lenext, name)) for name in dir(lenext))
"""
    assert "lenext.training.loop" in loaded_by(script)


def test_train_load_predict(run: Result, digits: Dataset, tmp_path: Path) -> None:
    """The example of the package's docstring."""
    model = lenext.load(run.bundle)
    place = digits.source.paths.index(digits.test.paths[0])
    (tmp_path / "x.png").write_bytes(digits.source.read(place))
    (prediction,) = model.predict(tmp_path)
    assert prediction.label == digits.classes[model.scores(digits.test.images[:1]).argmax()]
    assert prediction.probability is not None
    assert 0.1 < prediction.probability <= 1


def test_the_same_settings_give_the_same_model(tmp_path: Path, digits: Dataset) -> None:
    a, b, c = (
        lenext.train("digits", model="softmax", epochs=1, seed=seed, out=tmp_path / name)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    scores = [lenext.load(result.bundle).scores(digits.test.images) for result in (a, b, c)]
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_what_a_run_leaves_on_disk(run: Result) -> None:
    """The files that others rely on."""
    expected = {
        "args.yaml", "metrics.jsonl", "results.csv", "results.png", "confusion_matrix.png", "per_class.csv",
        "predictions.csv", "split.csv", "env.json", "estimate.json", "report.html", "best.lenext", "last",
        "data.json", "model.json", "evaluation.json", "summary.json", "worst.csv", "worst.npy", "filters.npy",
        "val_predictions.csv", "MODEL_CARD.md",
    }  # fmt: skip
    assert {path.name for path in run.root.iterdir()} == expected
    assert len(list((run.root / "last").iterdir())) in (1, 2)


def test_args_yaml_repeats_the_run(run: Result, tmp_path: Path, digits: Dataset) -> None:
    from lenext.spec import read_yaml

    again = lenext.train(settings=read_yaml(run.root / "args.yaml"), out=tmp_path / "again")
    first, second = (lenext.load(result.bundle).scores(digits.test.images) for result in (run, again))
    assert np.array_equal(first, second)


# ---- colour pictures with transparency, from end to end ----

CATEGORIES = ("animals", "food", "town", "vehicles")


def test_a_folder_of_colour_pictures(stamps: Path, tmp_path: Path) -> None:
    for category in CATEGORIES:
        (tmp_path / "stamps" / category).mkdir(parents=True)
        for number, source in enumerate(sorted((stamps / category).rglob("*.png"))[:40]):
            (tmp_path / "stamps" / category / f"{number}.png").write_bytes(source.read_bytes())
    (tmp_path / "stamps" / "food" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    report = lenext.check(str(tmp_path / "stamps"))
    assert tuple(report.classes) == CATEGORIES
    assert report.counts["alpha"] > 50
    assert len(report.problems) == 1

    data = str(tmp_path / "stamps")
    settings = {"data": {"size": 32}, "recipe": {"batch_size": 16}}
    result = lenext.train(data, model="lenet_relu", epochs=10, settings=settings, out=tmp_path / "run")
    recorded = json.loads((result.root / "data.json").read_text())
    assert recorded["preprocess"]["channels"] == 3
    assert [row["path"] for row in recorded["left_out"]] == [str(tmp_path / "stamps" / "food" / "broken.png")]
    assert "broken.png" in result.report.read_text(encoding="utf-8")
    images = {name: sum(counts.values()) for name, counts in recorded["counts"].items()}
    assert sum(images.values()) == report.images

    model = lenext.load(result.bundle, verify=True)
    assert model.evaluate(data)["accuracy"] == result.accuracy
    found = list(model.predict(tmp_path / "stamps"))
    assert sum(p.error is None for p in found) == report.images
    # of so few pictures it learns its own, if little more
    right = sum(p.label == Path(p.path).parent.name for p in found)
    assert right / len(found) > 0.6
