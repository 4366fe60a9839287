import json

import pytest
from conftest import SHARED, needs_reference
from pycocotools.cocoeval import Params

from pipeline.skeletons import SKELETONS


@pytest.mark.parametrize("name", SKELETONS)
def test_skeleton_is_consistent(name: str) -> None:
    skeleton = SKELETONS[name]
    assert skeleton.name == name
    assert len(set(skeleton.joints)) == len(skeleton) == len(skeleton.oks_sigmas)
    assert all(0 <= joint < len(skeleton) for limb in skeleton.limbs for joint in limb)
    assert sorted(skeleton.mirror) == list(range(len(skeleton)))
    for left, right in skeleton.mirror_pairs:
        assert skeleton.joints[left].replace("left", "right") == skeleton.joints[right]


def test_coco_sigmas_are_pycocotools() -> None:
    assert SKELETONS["coco17"].oks_sigmas == pytest.approx(Params("keypoints").kpt_oks_sigmas.tolist(), abs=1e-12)


@needs_reference
def test_coco_pairs_are_the_reference() -> None:
    pairs = json.loads((SHARED / "reference" / "joint_pairs.json").read_text())["Mscoco_det"]["joint_pairs"]
    assert [list(pair) for pair in SKELETONS["coco17"].mirror_pairs] == pairs
