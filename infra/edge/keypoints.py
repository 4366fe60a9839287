# /// script
# dependencies = ["onnxruntime==1.31.1", "numpy==2.4.6", "pillow==13.0.0"]
# ///
"""Keypoints of the people in a photograph, from two files of jobs/export.py, without this project and without PyTorch.

uv run keypoints.py photo.jpg nanodet_g_person.onnx fastpose_lite0_coco17.onnx
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

CONFIDENCE, NMS_IOU, ENLARGE = 0.4, 0.6, 1.25


def load(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    height, width = map(int, facts["input_size"].split("x"))
    return (lambda pixels: session.run(None, {"images": pixels.transpose(0, 3, 1, 2)})[0]), facts, height, width


def find_people(photo, network, height, width):
    """Boxes x1 y1 x2 y2 in pixels of the photograph, and their scores, best first."""
    scale = min(width / photo.width, height / photo.height)
    size = int(photo.width * scale), int(photo.height * scale)
    # Not resize(), which also smooths: the network was trained without.
    stretch = photo.width / size[0], 0, 0, 0, photo.height / size[1], 0
    small = photo.transform(size, Image.Transform.AFFINE, stretch, Image.Resampling.BICUBIC)
    corner = np.array([(width - size[0]) // 2, (height - size[1]) // 2])
    padded = Image.new("RGB", (width, height), (128, 128, 128))
    padded.paste(small, tuple(corner))
    rows = network(np.asarray(padded, np.float32)[None] / 255)[0]  # centre, size, objectness, classes
    rows = rows[(rows[:, 4] > CONFIDENCE) & (rows[:, 5:].argmax(axis=1) == 0)]  # person is the first class
    rows = rows[np.argsort(-rows[:, 4])]
    boxes = np.hstack([rows[:, :2] - rows[:, 2:4] / 2, rows[:, :2] + rows[:, 2:4] / 2])
    boxes = (boxes - np.tile(corner, 2)) * np.tile(np.array(photo.size) / size, 2)
    kept = []
    for index, box in enumerate(boxes):
        shared = [np.minimum(box, boxes[k])[2:] - np.maximum(box, boxes[k])[:2] for k in kept]
        common = np.array([np.maximum(sides, 0).prod() for sides in shared])
        both = np.array([(boxes[k][2:] - boxes[k][:2]).prod() for k in kept]) + (box[2:] - box[:2]).prod()
        if not kept or (common / (both - common)).max() < NMS_IOU:
            kept.append(index)
    return np.clip(boxes[kept], 0, [*photo.size, *photo.size]), rows[kept, 4]


def find_keypoints(photo, box, network, facts, height, width):
    """Joints x y in pixels of the photograph, and their scores."""
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    step = ENLARGE * max(size[0], size[1] * width / height) / width  # pixels of the photograph for one of the crop
    first = centre - step * np.array([width, height]) / 2 + (1 - step) / 2
    section = step, 0, first[0], 0, step, first[1]
    crop = photo.transform((width, height), Image.Transform.AFFINE, section, Image.Resampling.BILINEAR)
    maps = network(np.asarray(crop, np.float32)[None] / 255 - np.float32(json.loads(facts["mean"])))[0]
    peaks = [np.unravel_index(heatmap.argmax(), heatmap.shape) for heatmap in maps]
    cells = np.array([(x, y) for y, x in peaks], float)
    for joint, (heatmap, (y, x)) in enumerate(zip(maps, peaks, strict=True)):
        if 1 < x < heatmap.shape[1] - 1 and 1 < y < heatmap.shape[0] - 1:
            slope = heatmap[y, x + 1] - heatmap[y, x - 1], heatmap[y + 1, x] - heatmap[y - 1, x]
            cells[joint] += np.sign(slope) / 4
    stride = width / maps.shape[2]
    return centre + (cells * stride - np.array([width, height]) / 2) * step, maps.max(axis=(1, 2))


if __name__ == "__main__":
    photo = ImageOps.exif_transpose(Image.open(sys.argv[1])).convert("RGB")
    detector = load(sys.argv[2])
    assert detector[1]["letterbox"] == "true", "this example keeps the aspect ratio of the photograph"
    boxes, scores = find_people(photo, detector[0], *detector[2:])
    pose = load(sys.argv[3])
    assert pose[1]["decode"] == "argmax", "this example decodes heatmaps at their maxima only"
    for box, score in zip(boxes, scores, strict=True):
        joints, confidences = find_keypoints(photo, box, *pose)
        values = np.column_stack([joints, confidences]).round(3).tolist()
        keypoints = dict(zip(json.loads(pose[1]["joints"]), values, strict=True))
        print(json.dumps({"box": box.round(1).tolist(), "score": round(float(score), 3), "keypoints": keypoints}))
