"""Parts of an ONNX graph that are sensitive to fewer bits."""

from __future__ import annotations

import onnx


def behind_last_convolutions(model: onnx.ModelProto) -> list[str]:
    """The names of the last convolutions and of all nodes behind them: heatmaps and boxes are decoded from these."""
    makers = {output: node for node in model.graph.node for output in node.output}
    names: dict[str, None] = {}
    waiting = [output.name for output in model.graph.output]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in names:
            continue
        names[node.name] = None
        if node.op_type not in ("Conv", "DeformConv"):
            waiting += node.input
    return list(names)


def stem(model: onnx.ModelProto) -> list[str]:
    """The names of the convolutions that see at least half of the input's resolution."""
    inferred = onnx.shape_inference.infer_shapes(model)
    heights = {
        value.name: value.type.tensor_type.shape.dim[2].dim_value
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        if len(value.type.tensor_type.shape.dim) == 4
    }
    height = heights[model.graph.input[0].name]
    return [n.name for n in model.graph.node if n.op_type == "Conv" and 2 * heights.get(n.output[0], 0) >= height]


def padding(model: onnx.ModelProto) -> list[str]:
    """The names of the nodes that pad."""
    return [node.name for node in model.graph.node if node.op_type == "Pad"]
