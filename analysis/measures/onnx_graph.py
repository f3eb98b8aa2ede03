"""EfficientNet-Lite0 as an ONNX graph, which onnxruntime computes on a CPU in about half of torch's time.

An ONNX model is a protocol buffer: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto says which field has which
number. A graph as plain as this one takes a few lines and a tenth of a second to write, so there is no need for the
`onnx` package, nor for a cached file.
"""

from collections.abc import Mapping, Sequence

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

IR_VERSION, OPSET = 8, 17  # of ONNX 1.12 (2022): any onnxruntime for Python 3.11 reads them
FLOAT, INT_KIND, INTS_KIND = 1, 2, 7  # TensorProto.DataType, AttributeProto.AttributeType


def lite0_graph(network: EfficientNet, side: int) -> bytes:
    """The model: "images" float32 (n, 3, side, side) -> "pooled" (n, 1280) and "logits" (n, classes).

    network: in eval mode, each BatchNorm folded into its convolution.
    """
    graph = _Graph()
    six = graph.constant(torch.tensor(6.0))
    zero = graph.constant(torch.tensor(0.0))

    def relu6(x: str) -> str:
        return graph.node("Clip", x, zero, six)

    x = relu6(graph.convolution("images", network._conv_stem))
    for block in network._blocks:
        branch = relu6(graph.convolution(x, block._expand_conv)) if hasattr(block, "_expand_conv") else x
        branch = relu6(graph.convolution(branch, block._depthwise_conv))
        branch = graph.convolution(branch, block._project_conv)
        sizes = block._block_args
        residual = block.id_skip and sizes.stride == 1 and sizes.input_filters == sizes.output_filters
        x = graph.node("Add", branch, x) if residual else branch
    x = relu6(graph.convolution(x, network._conv_head))
    pooled = graph.node("Flatten", graph.node("GlobalAveragePool", x), output="pooled")
    weight, bias = graph.constant(network._fc.weight), graph.constant(network._fc.bias)
    graph.node("Gemm", pooled, weight, bias, output="logits", transB=1)
    outputs = {"pooled": (network._fc.in_features,), "logits": (network._fc.out_features,)}
    return graph.model(inputs={"images": (3, side, side)}, outputs=outputs)


class _Graph:
    """Nodes and constants, each written as it is added."""

    def __init__(self) -> None:
        self._fields: list[bytes] = []  # of GraphProto

    def constant(self, values: Tensor) -> str:
        """Add a constant; return its name."""
        name = self._new_name()
        data = values.detach().float().contiguous().numpy().tobytes()
        dims = [_field(1, size) for size in values.shape]
        self._fields.append(_field(5, *dims, _field(2, FLOAT), _field(8, name), _field(9, data)))
        return name

    def node(self, operator: str, *inputs: str, output: str | None = None, **attributes: int | Sequence[int]) -> str:
        """Add a node; return the name of its output."""
        output = output or self._new_name()
        fields = [*(_field(1, name) for name in inputs), _field(2, output), _field(4, operator)]
        for name, value in attributes.items():
            if isinstance(value, int):
                content = [_field(3, value), _field(20, INT_KIND)]
            else:
                content = [*(_field(8, number) for number in value), _field(20, INTS_KIND)]
            fields.append(_field(5, _field(1, name), *content))
        self._fields.append(_field(1, *fields))
        return output

    def convolution(self, x: str, conv: nn.Conv2d) -> str:
        """Add one of the network's convolutions, with the padding that it does by itself."""
        left = right = top = bottom = int(conv.padding[0])
        if isinstance(conv.static_padding, nn.ZeroPad2d):  # more on one side than on the other
            left, right, top, bottom = conv.static_padding.padding
        assert conv.bias is not None, "it has its BatchNorm's"
        weight, bias = self.constant(conv.weight), self.constant(conv.bias)
        pads, strides = (top, left, bottom, right), tuple(conv.stride)
        return self.node("Conv", x, weight, bias, pads=pads, strides=strides, group=conv.groups)

    def model(self, *, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, Sequence[int]]) -> bytes:
        """The whole model, from the names of its inputs and outputs and their shapes without the number of images."""
        ends = [_field(11, _value(*end)) for end in inputs.items()]
        ends += [_field(12, _value(*end)) for end in outputs.items()]
        graph = _field(7, *self._fields, _field(2, "effnet_lite0"), *ends)
        return _field(1, IR_VERSION) + graph + _field(8, _field(2, OPSET))

    def _new_name(self) -> str:
        return f"x{len(self._fields)}"


def _value(name: str, shape: Sequence[int]) -> bytes:
    """A ValueInfoProto: float32, the number of images free."""
    dims = [_field(1, _field(2, "n")), *(_field(1, _field(1, size)) for size in shape)]
    return _field(1, name) + _field(2, _field(1, _field(1, FLOAT), _field(2, *dims)))


def _field(number: int, *content: int | str | bytes) -> bytes:
    """One field of a protocol buffer: a whole number, a text, or a message made of its fields."""
    first = content[0] if content else b""
    if isinstance(first, int):
        return _varint(number << 3) + _varint(first)
    data = b"".join(part.encode() if isinstance(part, str) else bytes(part) for part in content)
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth bit says that more follow."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
