"""Bundles of networks that others trained predict as these did, from the file's bytes on."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models
from PIL import Image
from torch import nn

import lenext
from lenext.errors import DataError, UsageError

NAMES = {"resnet18": "resnet18-f37072fd.pth", "googlenet": "googlenet-1378be20.pth"}  # by which they are recognised


def theirs(name: str) -> nn.Module:
    torch.manual_seed(0)
    options = {"init_weights": False, "transform_input": True} if name == "googlenet" else {}
    network = torchvision.models.get_model(name, **options)
    nn.init.normal_(network.fc.weight, std=0.1)
    return network.eval()


@pytest.fixture(scope="module")
def pictures(stamps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEGs of real pictures, from smaller than the network's input to much larger."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, path in enumerate(sorted(stamps.rglob("*.png"))[:240:40]):
        image = Image.open(path).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        scale = 1 + 2 * number
        image.resize((image.width * scale, image.height * scale)).save(folder / f"{number}.jpg", quality=90)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_it_predicts_as_torchvision_does(name: str, pictures: Path, tmp_path: Path) -> None:
    network, weights = theirs(name), torchvision.models.get_model_weights(name).DEFAULT
    torch.save(network.state_dict(), tmp_path / NAMES[name])
    made = lenext.pretrained(name, weights=tmp_path / NAMES[name])
    assert made.classes == tuple(weights.meta["categories"])
    assert made.metadata["metrics"]["accuracy"] == pytest.approx(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100)

    made.save(tmp_path / "made.lenext")
    (tmp_path / NAMES[name]).unlink()
    assert str(tmp_path) not in str(made.metadata)
    bundle = lenext.load(tmp_path / "made.lenext", verify=True)
    assert len(bundle.goldens) == 1
    transforms = weights.transforms()
    predictions = list(bundle.predict(pictures))
    assert len(predictions) == 6
    for prediction in predictions:
        with torch.no_grad():
            scores = network(transforms(Image.open(prediction.path))[None])[0]
        expected = scores.softmax(0).numpy()
        assert np.abs(np.array(prediction.probabilities) - expected).max() < 0.02 * expected.max()
        assert prediction.label == weights.meta["categories"][expected.argmax()]


def test_unknown_weights_have_as_many_classes_as_they_have(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18(num_classes=3).state_dict(), tmp_path / "w.pt")
    made = lenext.pretrained("resnet18", weights=str(tmp_path / "w.pt"))
    assert made.classes == ("0", "1", "2")
    assert made.metadata["metrics"] == {}
    assert (made.preprocess.size, made.preprocess.resize) == (224, 256)
    file = io.BytesIO()
    Image.new("RGB", (300, 200), "teal").save(file, "PNG")
    (tmp_path / "x.png").write_bytes(file.getvalue())
    (prediction,) = made.predict(tmp_path / "x.png")
    assert prediction.label in made.classes


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown network 'resnet19'; did you mean"):
        lenext.pretrained("resnet19")
    with pytest.raises(
        UsageError, match=r"plain18: no such weights: 'imagenet'; accepted: a .pth or .safetensors file"
    ):
        lenext.pretrained("plain18")
    (tmp_path / "w.pth").write_bytes(b"no")
    with pytest.raises(DataError, match="damaged or no file of weights"):
        lenext.pretrained("resnet18", weights=tmp_path / "w.pth")
