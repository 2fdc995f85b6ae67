"""A classifier as a graph that needs no lenext: bytes in; probabilities, scores and how unusual an image is out.

It begins with the bytes that preprocessing gives, so that no other program has to know of means and deviations, and
ends with what is answered: the temperature is inside, and what else a bundle knows of its validation images.
"""

import copy
import warnings
from operator import attrgetter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export
from torch.fx import GraphModule, Node
from torch.nn.utils import fuse_conv_bn_weights

from lenext.classical import Classical
from lenext.classical.graph import graph as classical_graph
from lenext.classifier import ConvNet
from lenext.errors import UsageError
from lenext.evaluate import NEIGHBOURS, own_distances
from lenext.ship.bundle import Bundle
from lenext.ship.rounding import rounded_together

OUTPUTS = ("probabilities", "scores", "outlier")


class Graph(nn.Module):
    """Images uint8 [N, H, W, C] to probabilities float32 [N, K], scores float32 [N, K] and outlier float32 [N].

    What they are is said in `Bundle.answer`. Without validation images `outlier` is 0 throughout.
    """

    def __init__(self, scorer: nn.Module, val_scores: NDArray[np.float32]) -> None:
        super().__init__()
        self.scorer = scorer
        self.nearest = min(NEIGHBOURS, len(val_scores))
        if self.nearest:
            middle = val_scores.mean(axis=0)
            self.middle, self.own, self.reference = (
                nn.Buffer(torch.from_numpy(array)) for array in (middle, own_distances(val_scores), val_scores - middle)
            )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores = self.scorer(images).float()
        return scores.softmax(1), scores, self._outlier(scores)

    def _outlier(self, scores: Tensor) -> Tensor:
        """As `lenext.evaluate.distances` and `share_below` have it."""
        if not self.nearest:
            return torch.zeros_like(scores[:, 0])
        centred = scores - self.middle
        squares = (
            centred.square().sum(1, keepdim=True) + self.reference.square().sum(1) - 2 * centred @ self.reference.T
        )
        found = squares.topk(self.nearest, largest=False).values[:, -1:].clamp(min=0).sqrt()
        return (self.own < found).float().mean(1)


def program(bundle: Bundle, *, bf16: bool = False) -> ExportedProgram:
    """The classifier of `bundle` as a program for any number of images, simplified as `folded` has it.

    With `bf16` it is one to compute in bfloat16, as `for_bf16` has it. Raises UsageError where it cannot be told in
    operations on whole arrays.
    """
    classifier, shape = bundle.classifier, bundle.preprocess
    scorer: nn.Module
    if isinstance(classifier, ConvNet):
        scorer = folded(classifier, bf16=bf16)
    else:
        assert isinstance(classifier, Classical)
        scorer = classical_graph(classifier)
    graph = Graph(scorer, bundle.val_scores)
    return _exported(graph, torch.zeros(2, shape.size, shape.size, shape.channels, dtype=torch.uint8))


def to_onnx(made: ExportedProgram) -> Any:
    """The program as an ONNX model, its number of images called N."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operators that are registered twice, and the like
        exported = torch.onnx.export(made, dynamo=True, verbose=False, input_names=["images"], output_names=[*OUTPUTS])
    assert exported is not None
    model = exported.model_proto
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    return model


def folded(classifier: ConvNet, *, bf16: bool = False) -> nn.Module:
    """Images uint8 [N, H, W, C] to the classifier's scores [N, K], on the CPU, with less to do.

    What is linear is made part of a convolution: batch norm of the one before it, and the division of images by their
    deviation of the first ones. With `bf16` as `for_bf16` has it. Raises UsageError where the network cannot be told in
    operations on whole arrays.
    """
    if bf16:
        return _OfRows(for_bf16(classifier))
    made, network = _prepared(classifier)
    if _normalise_within(network, torch.zeros_like(made.mean), made.std):
        made.std = torch.ones_like(made.std)
    return _OfRows(made)


class _OfRows(nn.Module):
    """`ConvNet.forward` in evaluation.

    It normalises whole rows, of W·C numbers: three colours at a time take OpenVINO four times as long.
    """

    def __init__(self, classifier: ConvNet) -> None:
        super().__init__()
        self.classifier = classifier
        self.mean = nn.Buffer(classifier.mean.repeat(classifier.preprocess.size))
        std = classifier.std.repeat(classifier.preprocess.size)
        self.std = None if (std == 1).all() else nn.Buffer(std)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.flatten(2).float() - self.mean
        if self.std is not None:
            rows = rows / self.std
        return self.classifier.logits(rows.view(images.shape).permute(0, 3, 1, 2))


def for_bf16(classifier: ConvNet) -> ConvNet:
    """As `folded`, its first convolutions nearly exact in bfloat16: rounding what they take was the most of its error.

    They take whole numbers, which bfloat16 holds up to 256: the mean that is taken off is rounded, and what is left of
    it, and the division by the deviation, are done by weights and bias. Their weights are rounded together. A network
    whose first operation is no convolution is left as `folded` has it.
    """
    made, network = _prepared(classifier)
    whole = made.mean.round()
    if _normalise_within(network, made.mean - whole, made.std, rounded=True):
        _by_columns(network, made.mean - whole, made.preprocess.size)
        made.mean, made.std = whole, torch.ones_like(made.std)
    return made


def _prepared(classifier: ConvNet) -> tuple[ConvNet, GraphModule]:
    """A copy on the CPU that only predicts, and its network, batch norm folded."""
    shape = classifier.preprocess
    # Strides matter to a program: it is made in the layout that is usual elsewhere
    made = copy.deepcopy(classifier).cpu().eval().to(memory_format=torch.contiguous_format)
    made.network = network = _folded(_exported(made.network, torch.zeros(2, shape.channels, shape.size, shape.size)))
    return made, network


def _normalise_within(module: GraphModule, mean: Tensor, std: Tensor, *, rounded: bool = False) -> bool:
    """Has convolutions that take the image less `mean`, over `std`, take it as it is; False where others do.

    With `rounded` their weights are ones that bfloat16 holds.
    """
    first = _first(module)
    if any(conv.target is not torch.ops.aten.conv2d.default or conv.args[6:] not in ((), (1,)) for conv in first):
        return False
    for conv in first:
        weight = _value(module, conv.args[1])
        bias = _value(module, conv.args[2]) if len(conv.args) > 2 else None
        scaled = weight / std[:, None, None]
        moved = -(scaled * mean[:, None, None]).sum((1, 2, 3))
        values = rounded_together(scaled) if rounded else scaled, moved if bias is None else bias + moved
        with module.graph.inserting_before(conv):
            conv.args = (conv.args[0], *(_constant(module, conv, value) for value in values), *conv.args[3:])
    _tidy(module)
    return True


def _by_columns(module: GraphModule, mean: Tensor, size: int) -> None:
    """Has first convolutions take images [N, C, size, size] with a border of `mean` around, in the place of padding.

    And where they go by s columns at a time, s of them as the channels of one: there is more to multiply at a time.
    """
    graph = module.graph
    for conv in _first(module):
        weight = _value(module, conv.args[1])
        given = [*conv.args[3:6]]
        stride, padding, dilation = given + [[1, 1], [0, 0], [1, 1]][len(given) :]
        out, channels, height, width = weight.shape
        by = stride[1] if dilation[1] == 1 else 1
        columns = -(-width // by)
        weight = F.pad(weight, (0, columns * by - width)).view(out, channels, height, columns, by)
        weight = weight.permute(0, 4, 1, 2, 3).flatten(1, 2)
        (above, before), high = padding, size + 2 * padding[0]
        wide = ((size + 2 * before - width) // by + columns) * by if by > 1 else size + 2 * before
        border = mean.repeat(high, wide)
        border[above : above + size, before * channels : (before + size) * channels] = 0
        around = [before * channels, (wide - size - before) * channels, above, above]
        with graph.inserting_before(conv):
            rows = graph.call_function(torch.ops.aten.permute.default, (conv.args[0], [0, 2, 3, 1]))
            rows = graph.call_function(torch.ops.aten.reshape.default, (rows, [-1, size, size * channels]))
            if any(around):
                rows = graph.call_function(torch.ops.aten.constant_pad_nd.default, (rows, around))
            if border.any():
                rows = graph.call_function(torch.ops.aten.add.Tensor, (rows, _constant(module, conv, border)))
            rows = graph.call_function(torch.ops.aten.reshape.default, (rows, [-1, high, wide // by, by * channels]))
            images = graph.call_function(torch.ops.aten.permute.default, (rows, [0, 3, 1, 2]))
            weight = _constant(module, conv, weight)
        conv.args = (images, weight, conv.args[2], [stride[0], stride[1] // by], [0, 0], *conv.args[5:])
    _tidy(module)


def _first(module: GraphModule) -> list[Any]:
    """The operations that take the images."""
    (image,) = module.graph.find_nodes(op="placeholder")
    return [*image.users]


def _folded(of: ExportedProgram) -> GraphModule:
    module = of.module(check_guards=False)
    graph = module.graph
    for norm in graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default):
        conv, *statistics = norm.args[:5]
        if conv.target is not torch.ops.aten.conv2d.default or len(conv.users) > 1 or len(conv.args[1].users) > 1:
            continue
        gamma, beta, mean, variance = (_value(module, node) for node in statistics)
        bias = conv.args[2] if len(conv.args) > 2 else None
        values = fuse_conv_bn_weights(
            _value(module, conv.args[1]), _value(module, bias), mean, variance, norm.args[7], gamma, beta
        )
        with graph.inserting_before(conv):
            conv.args = (conv.args[0], *(_constant(module, conv, value) for value in values), *conv.args[3:])
        norm.replace_all_uses_with(conv)
        graph.erase_node(norm)
    _tidy(module)
    return module


def _tidy(module: GraphModule) -> None:
    """Leaves out what is not used any more, and lets the module follow its graph."""
    module.graph.eliminate_dead_code()
    used = {node.target for node in module.graph.find_nodes(op="get_attr")}
    for name in {name for name, _ in (*module.named_parameters(), *module.named_buffers())} - used:
        owner, _, own = name.rpartition(".")
        delattr(module.get_submodule(owner), own)
    module.recompile()


def _value(module: GraphModule, node: Node | None) -> Any:
    """The tensor that a node of `module` stands for; None of None."""
    return None if node is None else attrgetter(str(node.target))(module)


def _constant(module: GraphModule, of: Node, value: Tensor) -> Node:
    name = f"{of.name}_folded_{value.dim()}"
    module.register_buffer(name, value.detach())
    return module.graph.get_attr(name)


def _exported(module: nn.Module, example: Tensor) -> ExportedProgram:
    try:
        with torch.no_grad():
            return export(module, (example,), dynamic_shapes=({0: Dim("batch", min=1)},))
    except Exception as error:  # of many kinds, for a network of one's own that asks for values
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"the model cannot be told as a graph of operations: {said}") from error
