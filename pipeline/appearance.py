"""What people look like, as vectors: people of one video who look alike may be the same, see `tracking/reunion.py`."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
import torch

from pipeline.errors import UserError
from pipeline.people import People
from pipeline.runtime.device import Compute
from pipeline.runtime.network import Network, load_exported, trial_output
from pipeline.settings.tree import COLOUR
from pipeline.skeletons import Skeleton
from pipeline.weights.catalogue import local_file

_LEAST_SCORE = 0.2  # of a joint
_HUES, _SATURATIONS, _VALUES = 8, 2, 8
_SAMPLES = 8  # along each side of a part of the body
_USUAL_SIZE = (256, 128)  # of the crops of re-identification networks, height and width
_BATCH = 8
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Appearance(Protocol):
    """Describes people.

    Attributes:
        size: length of a vector.
    """

    size: int

    def describe(self, image: np.ndarray, people: People) -> np.ndarray:
        """(N, `size`) float32 vectors of length 1 or 0; the cosine of two says how alike they are.

        Args:
            image: (H, W, 3) uint8 RGB.
            people: in pixels of that image.
        """
        ...


def build_appearance(name: str | None, skeleton: Skeleton, compute: Compute) -> Appearance | None:
    """The description of people that the settings name; None for none.

    Raises:
        UserError: the skeleton has no trunk, or the network cannot be used.
    """
    if name is None:
        return None
    return ColourHistograms(skeleton) if name == COLOUR else ReidNetwork(name, compute)


class ColourHistograms:
    """Colours of the trunk and of the thighs, sampled between the joints: histograms of hues and of brightness."""

    size = 2 * (_HUES * _SATURATIONS + _VALUES)

    def __init__(self, skeleton: Skeleton) -> None:
        names = ("left_shoulder", "right_shoulder", "left_hip", "right_hip", "left_knee", "right_knee")
        if missing := [name for name in names if name not in skeleton.joints]:
            raise UserError(
                f"--output.appearance colour needs the joint {missing[0]}; {skeleton.name} does not have it"
            )
        self._joints = [skeleton.joints.index(name) for name in names]

    def describe(self, image: np.ndarray, people: People) -> np.ndarray:
        vectors = np.zeros((len(people), self.size), np.float32)
        for i in range(len(people)):
            corners = people.keypoints[i, self._joints].astype(float)
            seen = people.keypoint_scores[i, self._joints] >= _LEAST_SCORE
            left_shoulder, right_shoulder, left_hip, right_hip, left_knee, right_knee = corners
            trunk = [(left_shoulder, right_shoulder, left_hip, right_hip)] if seen[:4].all() else []
            sides = ((left_hip, left_knee, seen[[2, 4]]), (right_hip, right_knee, seen[[3, 5]]))
            thighs = [_thigh(hip, knee) for hip, knee, both in sides if both.all()]
            parts = [_histogram(image, quadrilaterals) for quadrilaterals in (trunk, thighs)]
            vectors[i] = np.sqrt(np.concatenate(parts))  # so that the cosine is the Bhattacharyya coefficient
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, 1e-12)


_Corners = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _thigh(hip: np.ndarray, knee: np.ndarray) -> _Corners:
    """The corners of a strip along a thigh, a fifth of its length wide."""
    across = np.array([knee[1] - hip[1], hip[0] - knee[0]]) / 10
    return hip - across, hip + across, knee - across, knee + across


def _histogram(image: np.ndarray, quadrilaterals: list[_Corners]) -> np.ndarray:
    """Shares of hues by saturation, and of brightness, of grids of samples; zeros without any inside the image."""
    share = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    across, down = share[None, :, None], share[:, None, None]
    grids = [((a + (b - a) * across) * (1 - down) + (c + (d - c) * across) * down) for a, b, c, d in quadrilaterals]
    places = np.concatenate([grid.reshape(-1, 2) for grid in grids]) if grids else np.zeros((0, 2))
    columns, rows = np.floor(places).astype(int).T
    inside = (rows >= 0) & (rows < image.shape[0]) & (columns >= 0) & (columns < image.shape[1])
    if not inside.any():
        return np.zeros(_HUES * _SATURATIONS + _VALUES)
    hsv = cv2.cvtColor(image[rows[inside], columns[inside]][None], cv2.COLOR_RGB2HSV)[0].astype(int)
    hue, saturation, value = hsv.T
    coloured = hue * _HUES // 180 * _SATURATIONS + saturation * _SATURATIONS // 256
    # The hue of grey and of black says nothing: it counts by saturation.
    hues = np.bincount(coloured, saturation / 255, _HUES * _SATURATIONS)
    values = np.bincount(value * _VALUES // 256, minlength=_VALUES)
    return np.concatenate([hues, values]) / len(value)


class ReidNetwork:
    """A network for re-identification in an exported file: RGB crops, normalised as for ImageNet, to vectors."""

    def __init__(self, weights: str, compute: Compute) -> None:
        """
        Raises:
            UserError: the file does not exist, or its output is not one vector for each crop.
        """
        self._network: Network = load_exported(local_file(weights), compute)
        self._crop_size = self._network.input_size or _USUAL_SIZE
        self._batch = self._network.batch_size or _BATCH
        output = trial_output(self._network, torch.zeros(self._batch, 3, *self._crop_size))
        if output.ndim != 2 or len(output) != self._batch:
            raise UserError(
                f"--output.appearance {weights}: its output for {self._batch} crops is {list(output.shape)}; expected "
                f"[{self._batch}, length of a vector]"
            )
        self.size = output.shape[1]

    def describe(self, image: np.ndarray, people: People) -> np.ndarray:
        vectors = np.zeros((len(people), self.size), np.float32)
        height, width = self._crop_size
        for first in range(0, len(people), self._batch):
            crops = np.zeros((self._batch, height, width, 3), np.float32)  # always full, so that batches do not matter
            boxes = people.boxes[first : first + self._batch]
            for row, box in enumerate(boxes):
                x1, y1, x2, y2 = _inside(box, image)
                crops[row] = cv2.resize(image[y1:y2, x1:x2], (width, height), interpolation=cv2.INTER_LINEAR)
            inputs = (torch.from_numpy(crops) / 255 - torch.tensor(_IMAGENET_MEAN)) / torch.tensor(_IMAGENET_STD)
            with torch.inference_mode():
                output = self._network(inputs.permute(0, 3, 1, 2).contiguous()).float().cpu().numpy()
            vectors[first : first + len(boxes)] = output[: len(boxes)]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.maximum(lengths, 1e-12)


def _inside(box: np.ndarray, image: np.ndarray) -> tuple[int, int, int, int]:
    """A box of at least one pixel in an image."""
    height, width = image.shape[:2]
    x1, y1 = int(np.clip(box[0], 0, width - 1)), int(np.clip(box[1], 0, height - 1))
    return x1, y1, int(np.clip(np.ceil(box[2]), x1 + 1, width)), int(np.clip(np.ceil(box[3]), y1 + 1, height))
