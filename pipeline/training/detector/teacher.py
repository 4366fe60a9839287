"""The teacher of a detector: an exported YOLOX network that runs on the same views."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.detectors.exported import ExportedDetector, yolox_cells
from pipeline.errors import UserError
from pipeline.runtime.device import Compute
from pipeline.settings.tree import DetectorSettings


class YoloxTeacher:
    """Predictions of a YOLOX network, in the order of the trained network's cells."""

    def __init__(self, weights: str, batch: int, side: int, cells: Tensor, compute: Compute) -> None:
        """
        Args:
            weights: .onnx or TorchScript: a file, URI, or name in the catalogue.
            batch: maximum number of views per call.
            side: of the views, pixels.
            cells: (N, 3) centre x, centre y and stride of each prediction of the trained network, pixels.

        Raises:
            UserError: it was exported for another input size, or the trained network has other cells.
        """
        settings = DetectorSettings(name="yolox", weights=weights, batch=batch, input_size=side)
        self._detector = ExportedDetector.from_settings(settings, compute)
        own = yolox_cells(self._detector.size)
        order = np.empty(len(cells), np.int64)
        if len(own) == len(cells):
            order[np.lexsort(cells.T.numpy())] = np.lexsort(own.T.numpy())
        if len(own) != len(cells) or not torch.equal(own[order], cells):
            raise UserError(
                f"--detector.teacher {weights} has {len(own)} predictions, one per cell at strides 8, 16 and 32; "
                f"--detector.cfg has {len(cells)}: its yolo layers need these strides and one anchor each"
            )
        self._order = torch.from_numpy(order)

    def __call__(self, views: Tensor) -> Tensor:
        """(B, S, S, 3) uint8 RGB to (B, N, 5) float32: cx cy w h in pixels, and person score."""
        _, rows = self._detector.predict(list(views.cpu().numpy()))
        predictions = torch.cat(
            [rows[..., :4], rows[..., 4:5] * rows[..., 5 + self._detector.classes.person, None]], dim=-1
        )
        return predictions[:, self._order].to(views.device)
