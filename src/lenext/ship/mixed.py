"""A model of OpenVINO's in bfloat16, but for the part of it where rounding tells most, which stays in float32.

bfloat16 has 8 bits of precision. Within the branch of a residual block they are enough: what is rounded there changes a
part of a sum. Not so what is handed on from sum to sum (He et al. 2016, Identity Mappings in Deep Residual Networks,
equation 4): each time it is rounded, all that follows is off. So the image, the first convolution and, as far as is
asked, the sums and the convolutions of shortcuts are in float32; the rest, nearly all of the work, is in bfloat16. What
each is worth is in docs/speed.md.
"""

import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lenext.errors import UsageError

_WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")
_PRECISE = {"name": "precise", "version": "0"}  # says of an operation in a file that it stays in float32


def in_bf16(model: Any, part: float) -> tuple[bytes, bytes]:
    """`model`, an openvino.Model, as files to compile in bfloat16, but for its beginning and its first sums.

    Of its sums the first `part` are in float32, and so are the convolutions of the shortcuts that they add. The files
    are OpenVINO's: operations (.xml) and weights (.bin). Raises UsageError where there are no sums of which to keep a
    part.
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
    for op in model.get_ordered_ops():
        given = [value.get_source_output().get_node().get_friendly_name() for value in op.inputs()]
        taken = [name for name in given if name in takes]
        if taken or op.get_type_name() == "Parameter":
            kinds[op.get_friendly_name()], takes[op.get_friendly_name()] = op.get_type_name(), taken
    sums = {name for name, taken in takes.items() if kinds[name] == "Add" and len(taken) > 1}
    if part and not sums:
        raise UsageError("a network without residual sums: nothing to mix")
    depth: dict[str, int] = {}  # how many sums one after the other it takes to come so far, views being side by side
    for name, taken in takes.items():
        depth[name] = max((depth[of] for of in taken), default=0) + (name in sums)
    last = round(part * max(depth.values()))
    first = {name for name in sums if depth[name] <= last}
    added = {_before_bias(name, kinds, takes) for at in first for name in takes[at]}
    images: set[str] = set()  # and what is made of them without weights
    precise: set[str] = set()
    for name, taken in takes.items():
        if kinds[name] in _WEIGHTED:
            stays = taken[0] in images or (taken[0] in precise and name in added)
        elif len(taken) > 1:
            stays = name in first
        else:
            stays = precise.issuperset(taken)
            if images.issuperset(taken):
                images.add(name)
        if stays:
            precise.add(name)
    return precise


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
