"""Weights of torchvision and timm in our networks, and how they are found, fetched and refused."""

import hashlib
import http.server
import json
import os
import re
import threading
from dataclasses import replace

import pytest
import timm
import torch
import torchvision.models
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg
from torch import nn

import lenext
from lenext.errors import DataError, UsageError
from lenext.models import VARIANTS, describe_weights, published
from lenext.models.published import Pretrained
from lenext.spec import Model


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """No weights are found, or left, where the machine's user keeps them."""
    monkeypatch.setenv("LENEXT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.fixture(scope="module")
def resnet18():
    """Torchvision's, its weights random, its statistics not those that every network begins with."""
    torch.manual_seed(0)
    return as_if_trained(torchvision.models.resnet18()).eval()


@pytest.fixture
def tiny():
    torch.manual_seed(2)
    return as_if_trained(lenext.build("resnet20")).eval()


def as_if_trained(network: nn.Module) -> nn.Module:
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return network


def same(ours: nn.Module, theirs: nn.Module, images: torch.Tensor) -> bool:
    """To a relative difference of 1e-5, of the largest score."""
    with torch.no_grad():
        scores, expected = ours.eval()(images), theirs.eval()(images)
    return bool((scores - expected).abs().max() <= 1e-5 * expected.abs().max())


# ---- files of others ----

# Our name, their network, a size in pixels that it takes, and what its file is called
TWINS = [
    ("alexnet_owt", lambda: torchvision.models.alexnet(num_classes=10), 64, "w.pth"),
    ("vgg11_bn", lambda: timm.create_model("vgg11_bn", num_classes=10), 224, "w.safetensors"),
    ("googlenet", lambda: torchvision.models.googlenet(num_classes=10, init_weights=False), 64, "w.pth"),
    ("googlenet", lambda: torchvision.models.googlenet(init_weights=False, aux_logits=False), 64, "w.pth"),
    ("inception_v4", lambda: timm.create_model("inception_v4"), 96, "w.safetensors"),
    ("resnet18", lambda: torchvision.models.resnet18(), 64, "w.safetensors"),
    ("resnext50_32x4d", lambda: torchvision.models.resnext50_32x4d(), 64, "w.pth"),
    ("resnext50_32x4d", lambda: timm.create_model("resnext50_32x4d"), 64, "w.safetensors"),
]


@pytest.mark.parametrize(("name", "make", "size", "file"), TWINS)
def test_weights_go_over_and_back(name, make, size, file, tmp_path):
    torch.manual_seed(1)
    theirs, images = as_if_trained(make()), torch.randn(2, 3, size, size)
    (save_file if file.endswith("safetensors") else torch.save)(theirs.state_dict(), tmp_path / file)
    ours = lenext.build(name, weights=tmp_path / file, size=size)
    (tmp_path / file).unlink()  # half a gigabyte, of VGG
    assert same(ours, theirs, images)
    if name != "vgg11_bn":  # timm's names differ there
        with torch.no_grad():
            for tensor in theirs.state_dict().values():
                tensor.zero_()
        back = {key: tensor for key, tensor in ours.state_dict().items() if key in theirs.state_dict()}
        theirs.load_state_dict(back)
        assert same(ours, theirs, images)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"state_dict": state, "epoch": 90},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")},
        lambda state: {name: nn.Parameter(t) if t.is_floating_point() else t for name, t in state.items()},
    ],
    ids=["state_dict", "model, module.", "_orig_mod.", "no num_batches_tracked", "parameters"],
)
def test_files_of_training_scripts_are_understood(wrapped, tiny, tmp_path):
    for zipped in (True, False):
        torch.save(wrapped(tiny.state_dict()), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        assert same(lenext.build("resnet20", weights=tmp_path / "w.pth"), tiny, torch.randn(1, 3, 32, 32))


def test_half_precision_becomes_single(tiny, tmp_path):
    save_file({name: t.half() for name, t in tiny.state_dict().items()}, tmp_path / "w.safetensors")
    ours = lenext.build("resnet20", weights=str(tmp_path / "w.safetensors"))
    assert ours.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(ours.conv1.weight, tiny.conv1.weight, atol=1e-3, rtol=1e-3)


@pytest.fixture
def file(resnet18, tmp_path):
    torch.save(resnet18.state_dict(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


def test_other_classes_get_a_new_head(file, resnet18):
    ours = lenext.build("resnet18", weights=file, classes=7)
    assert ours.fc.weight.shape == (7, 512)
    assert 0 < ours.fc.weight.std() < 0.02  # the scores begin nearly equal
    assert not ours.fc.bias.any()
    ours.fc = resnet18.fc
    assert same(ours, resnet18, torch.randn(1, 3, 64, 64))


def test_the_classes_are_those_of_the_file(tmp_path):
    theirs = torchvision.models.googlenet(num_classes=5, init_weights=False)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    assert same(lenext.build("googlenet", weights=tmp_path / "w.pth"), theirs, torch.randn(1, 3, 64, 64))
    ours = lenext.build("googlenet", weights=tmp_path / "w.pth", classes=4)
    assert [len(layer.bias) for layer in (ours.fc, ours.aux1.fc2, ours.aux2.fc2)] == [4, 4, 4]
    assert torch.equal(ours.aux1.fc1.weight, theirs.aux1.fc1.weight)


def test_tensorflows_background_class_is_dropped(tmp_path):
    theirs = timm.create_model("inception_v4", num_classes=1001)  # as in the file that is known
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = lenext.build("inception_v4", weights=tmp_path / "w.pth", size=96)
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images)[:, 1:])


def test_gray_is_answered_as_gray_in_three_colours(file, resnet18):
    gray = torch.randn(2, 1, 64, 64)
    ours = lenext.build("resnet18", weights=file, channels=1)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(gray), resnet18(gray.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_more_channels_take_the_colours_in_turn(file, resnet18):
    filters = lenext.build("resnet18", weights=file, channels=4).conv1.weight
    torch.testing.assert_close(filters[:, [0, 1, 2]], resnet18.conv1.weight * 3 / 4)
    torch.testing.assert_close(filters[:, 3], resnet18.conv1.weight[:, 0] * 3 / 4)
    six, images = lenext.build("resnet18", weights=file, channels=6).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        twice = six(torch.cat([images, images], 1))
        torch.testing.assert_close(twice, resnet18(images), rtol=1e-4, atol=1e-5)


def test_the_layout_is_that_of_the_weights_at_any_size(file):
    small, large = lenext.build("resnet18", size=32), lenext.build("resnet18", size=64, weights=file)
    assert (small.conv1.stride, large.conv1.stride) == ((1, 1), (2, 2))
    with pytest.raises(UsageError, match=r"resnet18: given images of 32 px, accepted: \d+ px or more"):
        lenext.build("resnet18", weights=file, size=32)


# ---- what is refused ----


class Evil:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: None, (r"resnet18: no such weights: '.*w\.pth'; accepted: a \.pth or \.safetensors file, or the "
                            r"name of published ones: imagenet, imagenet1k_v1")),
        (lambda path: path.write_bytes(b""), r"w\.pth is damaged or no file of weights \(it is cut off\)"),
        (lambda path: path.write_text("<html>404</html>"), r"w\.pth is damaged or no file of weights"),
        (lambda path: (torch.save({"a": torch.ones(999)}, path), path.write_bytes(path.read_bytes()[:2000])),
         r"w\.pth is damaged or no file of weights"),
        (lambda path: torch.save(Evil(), path), r"w\.pth is not read: to unpickle it would run code, \w+\.mkdir"),
        (lambda path: torch.save({"state_dict": {"a": torch.ones(1)}, "args": Evil()}, path), r"would run code"),
        (lambda path: torch.save(nn.Linear(2, 2), path), r"would run code, torch.nn.modules.linear.Linear"),
        (lambda path: torch.save([1, 2], path), r"w\.pth holds no state dict but list"),
        (lambda path: torch.save({"epoch": 3, "w": torch.ones(1)}, path), r"no state dict but a mapping of epoch, w"),
        (lambda path: torch.save({}, path), r"holds no state dict"),
    ],
    ids=["missing", "empty", "text", "cut off", "code", "code beside", "a module", "a list", "other things", "nothing"],
)  # fmt: skip
def test_files_that_cannot_be_used_are_refused(write, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "w.pth")
    with pytest.raises((DataError, UsageError), match=said) as caught:
        lenext.build("resnet18", weights=tmp_path / "w.pth")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "owned").exists()


def test_damaged_safetensors_are_refused(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-4])
    with pytest.raises(DataError, match=r"w\.safetensors is damaged or no file of weights \(.*not fully covered\)"):
        lenext.build("resnet18", weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("resnet50", {}, "layer1.0.conv1.weight is 64×64×3×3, expected 64×64×1×1; .*; and [0-9]+ more"),
        ("resnet34", {}, "layer1.2.conv1.weight is missing; .*; and [0-9]+ more"),
        ("resnet18", {"width": 0.5}, "conv1.weight is 64×3×7×7, expected 32×3×7×7"),
        ("resnet18", {"norm": "none"}, "conv1.bias is missing"),
        ("resnet18", {"layout": "small", "classes": 5}, "conv1.weight is 64×3×7×7, expected 64×3×3×3$"),
        ("alexnet_owt", {}, "features.0.weight is missing"),
    ],
)
def test_weights_of_another_network_are_refused(name, options, said, file):
    with pytest.raises(DataError, match=rf"w\.pth for {name}: these are weights of another network: {said}"):
        lenext.build(name, weights=file, **options)


def test_what_the_network_has_no_place_for_is_refused(resnet18, tmp_path):
    torch.save({**resnet18.state_dict(), "fc2.weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"another network: fc2\.weight is unknown$"):
        lenext.build("resnet18", weights=tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["fc.bias", "fc.weight", "conv1.weight"])
@pytest.mark.parametrize("tensor", [torch.tensor(1.0), torch.empty(16, 0, 3, 3), torch.empty(3, 5)])
def test_tensors_of_any_shape_are_refused(name, tensor, tiny, tmp_path):
    torch.save({**tiny.state_dict(), name: tensor}, tmp_path / "w.pth")
    with pytest.raises(DataError, match=rf"another network: {name} is .*, expected "):
        lenext.build("resnet20", weights=tmp_path / "w.pth")


# ---- what is known of weights ----


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "alexnet_owt", "resnext101_64x4d"])
def test_the_table_is_torchvisions(name):
    enumeration = torchvision.models.get_model_weights(name.removesuffix("_owt"))
    table = published.known(name)
    assert next(iter(table)) == enumeration.DEFAULT.name.lower()
    assert len(table) == sum(entry.meta["categories"] is not None for entry in enumeration)  # vgg16: not its features
    for row in table.values():
        entry = enumeration[row.name.upper()]
        transforms = entry.transforms()
        assert (row.size, row.resize) == (transforms.crop_size[0], transforms.resize_size[0])
        assert (list(row.mean), list(row.std)) == (transforms.mean, transforms.std)
        assert row.interpolation == transforms.interpolation.value
        assert row.classes == tuple(entry.meta["categories"])
        assert row.accuracy == pytest.approx(entry.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100)
        assert row.url == entry.url
        assert f"-{row.sha256}.pth" in row.url


def test_inception_v4_is_described_as_timm_does():
    theirs, ours = (
        get_pretrained_cfg("inception_v4.tf_in1k"),
        describe_weights(Model("inception_v4", weights="imagenet")),
    )
    assert (ours.mean, ours.std, ours.size) == (theirs.mean, theirs.std, theirs.input_size[1])
    assert (ours.resize, ours.interpolation) == (int(ours.size / theirs.crop_pct), theirs.interpolation)
    assert len(ours.classes) == theirs.num_classes


def test_every_published_accuracy_of_the_table_of_networks_is_that_of_the_weights():
    for name, row in VARIANTS.items():
        if row.published and "IMAGENET1K_V1" in row.published.source:
            accuracy = published.known(name)["imagenet1k_v1"].accuracy
            assert row.published.accuracy == f"ImageNet {accuracy:.3f}", name


@pytest.mark.parametrize(
    ("name", "weights"), [("plain18", "imagenet"), ("resnet50", "imagenet1k_v3"), ("alexnet", "x")]
)
def test_names_that_are_not_known_are_refused(name, weights):
    with pytest.raises(
        UsageError, match=f"{name}: no such weights: '{weights}'; accepted: a .pth or .safetensors file"
    ):
        lenext.build(name, weights=weights)


def test_a_file_is_recognised_by_its_name(resnet18, tmp_path):
    torch.save(resnet18.state_dict(), tmp_path / "resnet18-f37072fd.pth")
    found = describe_weights(Model("resnet18", weights=str(tmp_path / "resnet18-f37072fd.pth")))
    assert (found.name, found.classes[0], found.accuracy) == ("imagenet1k_v1", "tench", pytest.approx(0.69758))


def test_a_file_is_recognised_by_its_hash(file, monkeypatch):
    known = replace(published.known("resnet18")["imagenet1k_v1"], sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(published, "known", lambda _: {"imagenet1k_v1": known})
    assert describe_weights(Model("resnet18", weights=str(file))).classes == known.classes


def test_of_another_file_the_usual_is_assumed(file):
    found = describe_weights(Model("resnet18", weights=str(file)))
    assert found == Pretrained("w.pth", "an unknown file")
    assert found.mean == (0.485, 0.456, 0.406)
    assert found.classes is None
    assert found.accuracy is None


def test_the_config_beside_a_file_of_timms_is_read(file):
    theirs = get_pretrained_cfg("resnet18.a1_in1k")
    config = {"architecture": "resnet18", "num_classes": 1000, "pretrained_cfg": theirs.to_dict()}
    (file.parent / "config.json").write_text(json.dumps(config))
    found = describe_weights(Model("resnet18", weights=str(file)))
    assert (found.size, found.resize, found.interpolation) == (224, int(224 / 0.95), "bicubic")
    assert found.classes == published.imagenet_classes()
    assert found.source == "timm, resnet18.a1_in1k"

    config |= {"label_names": ["cat", "dog"]}
    (file.parent / "config.json").write_text(json.dumps(config))
    assert describe_weights(Model("resnet18", weights=str(file))).classes == ("cat", "dog")

    del config["pretrained_cfg"]["mean"]
    (file.parent / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"config\.json is not understood as timm's: KeyError: 'mean'"):
        describe_weights(Model("resnet18", weights=str(file)))

    (file.parent / "config.json").write_text('{"model_type": "bert"}')
    assert describe_weights(Model("resnet18", weights=str(file))).source == "an unknown file"


def test_normalisation_is_in_units_of_pixels_and_averaged_for_gray():
    known = Pretrained("x", "y", mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.3))
    assert known.normalisation(3) == (pytest.approx((51, 102, 153)), pytest.approx((25.5, 51, 76.5)))
    assert known.normalisation(1) == (pytest.approx((102,)), pytest.approx((51,)))


# ---- fetching ----


class Server:
    """Serves `content` on loopback, badly where told to."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ranges = True
        self.breaks: list[int] = []  # bytes after which the connections break, one after the other
        self.asked: list[str | None] = []  # the Range header of each request
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers["Range"]
                outer.asked.append(wanted)
                if "404" in self.path:
                    self.send_error(404)
                    return
                first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and outer.ranges else 0
                if first >= len(outer.content):
                    self.send_error(416)
                    return
                part = outer.content[first:]
                self.send_response(206 if wanted and outer.ranges else 200)
                self.send_header("Content-Length", str(len(part)))
                self.end_headers()
                self.wfile.write(part[: outer.breaks.pop(0)] if outer.breaks else part)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server(tiny, tmp_path, monkeypatch):
    """Publishes weights of resnet20, and says so in the table."""
    torch.save(tiny.state_dict(), tmp_path / "published.pth")
    serving = Server((tmp_path / "published.pth").read_bytes())
    digest = hashlib.sha256(serving.content).hexdigest()[:8]
    row = Pretrained("best", "nobody", size=32, url=f"{serving.address}/resnet20-{digest}.pth", sha256=digest)
    monkeypatch.setattr(published, "known", lambda name: {"best": row} if name == "resnet20" else {})
    serving.row, serving.file = row, tmp_path / "cache" / "weights" / f"resnet20-{digest}.pth"
    yield serving
    serving.close()


def fetched(server, tiny) -> bool:
    ours = lenext.build("resnet20", weights="imagenet")
    assert server.file.read_bytes() == server.content
    assert [path.name for path in server.file.parent.iterdir()] == [server.file.name]  # and nothing half
    return same(ours, tiny, torch.randn(1, 3, 32, 32))


def test_published_weights_are_fetched_once(server, tiny):
    assert fetched(server, tiny)
    assert fetched(server, tiny)
    assert server.asked == [None]


def test_a_broken_connection_is_taken_up_where_it_broke(server, tiny):
    server.breaks = [100_000, 50_000]
    assert fetched(server, tiny)
    assert server.asked == [None, "bytes=100000-", "bytes=150000-"]


def test_what_came_before_an_error_is_not_fetched_again(server, tiny):
    server.breaks = [100_000, 0]
    with pytest.raises(
        DataError, match=r"cannot be fetched \(the connection broke after 100,000 of .* bytes\); offline"
    ):
        lenext.build("resnet20", weights="best")
    assert not server.file.exists()
    assert fetched(server, tiny)
    assert server.asked[-1] == "bytes=100000-"


def test_a_server_without_ranges_is_asked_for_the_whole(server, tiny):
    server.ranges, server.breaks = False, [100_000]
    assert fetched(server, tiny)
    assert server.asked == [None, "bytes=100000-"]


@pytest.mark.parametrize("left", [b"something else", b"more than all of it" * 100_000])
def test_a_beginning_of_something_else_is_dropped(left, server, tiny):
    server.file.parent.mkdir(parents=True)
    server.file.with_name(f"{server.file.name}.part").write_bytes(left)
    assert fetched(server, tiny)


def test_a_file_that_had_come_whole_is_not_fetched_again(server, tiny):
    server.file.parent.mkdir(parents=True)
    server.file.with_name(f"{server.file.name}.part").write_bytes(server.content)
    assert fetched(server, tiny)
    assert server.asked == [f"bytes={len(server.content)}-"]


def test_other_content_than_was_published_is_refused(server):
    server.content = b"an advertisement"
    with pytest.raises(DataError, match=rf"a SHA-256 that begins with \w{{8}}, expected {server.row.sha256}"):
        lenext.build("resnet20", weights="imagenet")
    assert list(server.file.parent.iterdir()) == []


@pytest.mark.parametrize("why", ["404", "refused"])
def test_offline_it_says_which_file_goes_where(why, server, monkeypatch):
    url = f"{server.address}/404/resnet20-{server.row.sha256}.pth"
    if why == "refused":
        url = url.replace(server.address, "http://127.0.0.1:9")
    monkeypatch.setattr(published, "known", lambda _: {"best": replace(server.row, url=url)})
    with pytest.raises(DataError, match=f"cannot be fetched .*{why}") as caught:
        lenext.build("resnet20", weights="imagenet")
    message = str(caught.value)
    assert "\n" not in message
    for part in (server.file.name, url, server.row.sha256, str(server.file.parent)):
        assert part in message.partition("offline, put ")[2]


def test_a_file_of_torch_hub_is_found(server, tiny, caches):
    hub = caches / "torch" / "hub" / "checkpoints" / server.file.name
    hub.parent.mkdir(parents=True)
    hub.write_bytes(server.content)
    assert same(lenext.build("resnet20", weights="imagenet"), tiny, torch.randn(1, 3, 32, 32))
    assert server.asked == []


def test_a_file_put_there_by_hand_is_checked(server):
    server.file.parent.mkdir(parents=True)
    server.file.write_bytes(server.content[:-1])
    with pytest.raises(DataError, match=r"is not what it should be: .* remove it to have it fetched again"):
        lenext.build("resnet20", weights="imagenet")
    assert server.asked == []
