import json

import pytest
from pycocotools.cocoeval import Params
from support.paths import SHARED, needs_reference

from pipeline.skeletons import SKELETONS

SIZES = {
    "coco17": 17,
    "halpe26": 26,
    "halpe68": 68,
    "halpe136": 136,
    "wholebody133": 133,
    "hand21": 21,
    "mpii16": 16,
}
REFERENCE_NAMES = {
    "coco17": "Mscoco_det",
    "halpe26": "Halpe_26",
    "halpe68": "Halpe_68_noface",
    "halpe136": "Halpe_136",
    "wholebody133": "coco_wholebody",
    "mpii16": "Mpii",
}


def test_all_skeletons_exist() -> None:
    assert {name: len(skeleton) for name, skeleton in SKELETONS.items()} == SIZES


@pytest.mark.parametrize("name", SKELETONS)
def test_skeletons_are_consistent(name: str) -> None:
    skeleton = SKELETONS[name]
    assert skeleton.name == name
    assert len(set(skeleton.joints)) == len(skeleton) == len(skeleton.oks_sigmas)
    assert all(0 < sigma < 0.2 for sigma in skeleton.oks_sigmas)
    assert all(0 <= joint < len(skeleton) for limb in skeleton.limbs for joint in limb)
    assert sorted(skeleton.mirror) == list(range(len(skeleton)))
    for left, right in skeleton.mirror_pairs:
        if skeleton.joints[left].startswith("face"):
            assert skeleton.joints[right].startswith("face")
        else:
            assert skeleton.joints[left].startswith("left")
            assert skeleton.joints[left].replace("left", "right", 1) == skeleton.joints[right]


@pytest.mark.parametrize("name", SKELETONS)
def test_limbs_are_symmetric(name: str) -> None:
    skeleton = SKELETONS[name]
    limbs = {frozenset(limb) for limb in skeleton.limbs}
    assert {frozenset(skeleton.mirror[joint] for joint in limb) for limb in limbs} == limbs


def test_coco_sigmas_equal_those_of_pycocotools() -> None:
    assert SKELETONS["coco17"].oks_sigmas == pytest.approx(Params("keypoints").kpt_oks_sigmas.tolist(), abs=1e-12)


@needs_reference
@pytest.mark.parametrize("name", REFERENCE_NAMES)
def test_mirror_pairs_equal_the_reference(name: str) -> None:
    reference = json.loads((SHARED / "reference" / "joint_pairs.json").read_text())
    pairs = reference[REFERENCE_NAMES[name]]["joint_pairs"]
    assert {frozenset(pair) for pair in SKELETONS[name].mirror_pairs} == {frozenset(pair) for pair in pairs}
    assert len(SKELETONS[name].mirror_pairs) == len(pairs)
