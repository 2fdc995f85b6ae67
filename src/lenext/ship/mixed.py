"""A model of OpenVINO's in bfloat16, but for the part of it where rounding tells most, which stays in float32.

bfloat16 has 8 bits of precision. Within the branch of a residual block they are enough: what is rounded there changes a
part of a sum. Not so what is handed on from sum to sum (He et al. 2016, Identity Mappings in Deep Residual Networks,
equation 4): each time it is rounded, all that follows is off. So what the first convolution gives and, as far as is
asked, the sums and the convolutions of shortcuts are in float32; the rest, nearly all of the work, is in bfloat16. The
image and the first convolution are so, too, unless bfloat16 holds them (`lenext.ship.graph.for_bf16`). What each is
worth is in docs/speed.md.
"""

import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch

from lenext.errors import UsageError

_WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")
_PRECISE = {"name": "precise", "version": "0"}  # says of an operation in a file that it stays in float32


def in_bf16(model: Any, part: float) -> tuple[bytes, bytes]:
    """`model`, an openvino.Model, as files to compile in bfloat16, but for its beginning and its first sums.

    Of its sums the first `part` are in float32, and so are the convolutions of the shortcuts that they add; the last
    sum is, too, which costs nothing. The files are OpenVINO's: operations (.xml) and weights (.bin). Raises UsageError
    where there are no sums of which to keep a part.
    """
    import openvino

    _pool_as_before(model)
    precise = _precise(model, part)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.serialize(model, path)
        graph = ElementTree.parse(path).getroot()  # noqa: S314 (of our own making)
        for layer in graph.iter("layer"):
            if layer.get("name") in precise:
                about = layer.find("rt_info")
                about = ElementTree.SubElement(layer, "rt_info") if about is None else about
                ElementTree.SubElement(about, "attribute", _PRECISE)
        return ElementTree.tostring(graph), path.with_suffix(".bin").read_bytes()


def _precise(model: Any, part: float) -> set[str]:
    """The names of the operations of `model` that stay in float32."""
    kinds: dict[str, str] = {}  # of what depends on the images, in the order in which it is computed
    takes: dict[str, list[str]] = {}
    images: set[str] = set()  # and what is made of them without weights
    held, rounded = set[str](), set[str]()  # what takes them with weights that bfloat16 holds, or others
    for op in model.get_ordered_ops():
        name, kind = op.get_friendly_name(), op.get_type_name()
        given = [value.get_source_output().get_node().get_friendly_name() for value in op.inputs()]
        taken = [name for name in given if name in takes]
        if taken or kind == "Parameter":
            kinds[name], takes[name] = kind, taken
            if images.issuperset(taken):
                (images if kind not in _WEIGHTED else held if _is_held(op) else rounded).add(name)
    sums = {name for name, taken in takes.items() if kinds[name] == "Add" and len(taken) > 1}
    if part and not sums:
        raise UsageError("a network without residual sums: nothing to mix")
    depth: dict[str, int] = {}  # how many sums one after the other it takes to come so far, views being side by side
    for name, taken in takes.items():
        depth[name] = max((depth[of] for of in taken), default=0) + (name in sums)
    deepest = max(depth.values())
    whole = {name for name in sums if depth[name] <= round(part * deepest) or depth[name] == deepest}
    added = {_before_bias(name, kinds, takes) for at in whole for name in takes[at]}
    in_float32 = set(held)  # what gives it
    for name, taken in takes.items():
        if name in images:
            stays = bool(rounded)
        elif kinds[name] in _WEIGHTED:
            stays = name in rounded or (taken[0] in in_float32 and name in added)
        elif len(taken) > 1:
            stays = name in whole
        else:
            stays = in_float32.issuperset(taken)
        if stays:
            in_float32.add(name)
    return in_float32 - held


def _is_held(op: Any) -> bool:
    """Whether bfloat16 holds the weights of an operation."""
    weights = op.input_value(1).get_node()
    if weights.get_type_name() != "Constant":
        return False
    numbers = torch.from_numpy(np.array(weights.data, np.float32))
    return torch.equal(numbers, numbers.bfloat16().float())


def _before_bias(name: str, kinds: dict[str, str], takes: dict[str, list[str]]) -> str:
    """What is `name`, where that adds a constant: to what it adds it."""
    return _before_bias(takes[name][0], kinds, takes) if kinds[name] == "Add" and len(takes[name]) == 1 else name


def _pool_as_before(model: Any) -> None:
    """Has max pooling in the form of OpenVINO's first operations, which is what stays in float32 if asked to."""
    import openvino.opset1

    for op in model.get_ordered_ops():
        about = op.get_attributes() if op.get_type_name() == "MaxPool" else {}
        if {*about.get("dilations", ())} == {1} and not op.output(1).get_target_inputs():
            older = openvino.opset1.max_pool(
                op.input_value(0), about["strides"], about["pads_begin"], about["pads_end"], about["kernel"],
                about["rounding_type"], about["auto_pad"],
            )  # fmt: skip
            older.set_friendly_name(op.get_friendly_name())
            for user in op.output(0).get_target_inputs():
                user.replace_source_output(older.output(0))
