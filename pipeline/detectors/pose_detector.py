"""Networks that find boxes and joints at once, in exported files, ONNX or TorchScript: YOLO-pose and MoveNet."""

from __future__ import annotations

import ast

import numpy as np
import torch
from torch import Tensor

from pipeline.detectors.exported import ExportedDetector, OutputFormat
from pipeline.errors import UserError
from pipeline.people import Boxes
from pipeline.runtime.device import Compute
from pipeline.runtime.network import Network
from pipeline.settings.tree import DetectorSettings


class PoseDetector(ExportedDetector):
    """People with joints from an exported network: x y score of each joint follow the class scores in its decoded rows.

    Attributes:
        num_joints: joints of a person.
    """

    def __init__(
        self, network: Network, output_format: OutputFormat, settings: DetectorSettings, compute: Compute
    ) -> None:
        """
        Raises:
            UserError: the network has no joints, or cannot be used; see `ExportedDetector`.
        """
        super().__init__(network, output_format, settings, compute)
        _, rows = self.predict([np.full((*self.size, 3), 128, np.uint8)])
        columns = rows.shape[2] - 5 - self.classes.count
        joints, values = _stated_shape(network.metadata.get("kpt_shape", ""), columns)
        if columns == 0 or joints * values != columns or values not in (2, 3):
            raise UserError(
                f"--detector.weights {settings.weights}: the {columns} columns after the classes are not x y score of "
                "joints; it is not a pose network: set --detector.name yolo"
            )
        self.num_joints, self._values = joints, values

    def select(self, rows: Tensor) -> Boxes:
        end = 5 + self.classes.count
        poses = rows[:, end:].reshape(len(rows), self.num_joints, self._values)
        if self._values == 2:  # without scores
            poses = torch.cat([poses, torch.ones_like(poses[..., :1])], dim=2)
        return self._select(rows, poses)


def _stated_shape(text: str, columns: int) -> tuple[int, int]:
    """Joints and values of each, as Ultralytics' `kpt_shape` states them, else three values for each joint."""
    try:
        joints, values = ast.literal_eval(text)
        return int(joints), int(values)
    except (ValueError, SyntaxError, TypeError):
        return columns // 3, 3
