"""CLEAR MOT, IDF1 and HOTA of small sequences whose numbers follow by hand, and against TrackEval."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.packages import needs_uv, run_with

from pipeline.evaluation.tracks.metrics import Clear, Frame, Hota, Identity, clear, hota, identity


def frames(*pairs: dict[int, int | None], extra: int = 0, similarity: float = 1.0) -> list[Frame]:
    """Each frame as annotated track to predicted track, None for a person who is missed."""
    made = []
    for pair in pairs:
        found = [track for track in pair.values() if track is not None] + list(range(900, 900 + extra))
        table = [[similarity if track == other else 0.0 for other in found] for track in pair.values()]
        made.append(Frame(np.array(list(pair), int), np.array(found, int), np.reshape(table, (len(pair), len(found)))))
    return made


def test_perfect_tracks() -> None:
    perfect = frames(*[{1: 10, 2: 20}] * 5)
    assert clear(perfect) == Clear(matched=10, similarity=10.0)
    assert clear(perfect).mota == clear(perfect).motp == 1
    assert identity(perfect).f1 == 1
    assert hota(perfect).score == hota(perfect).detection == hota(perfect).associated == 1


def test_a_track_that_breaks_once() -> None:
    """Ten frames; the track changes after six. MOTA loses one tenth; IDF1 keeps six of ten."""
    broken = frames(*[{1: 10}] * 6, *[{1: 11}] * 4)
    assert clear(broken) == Clear(matched=10, switches=1, similarity=10.0)
    assert clear(broken).mota == pytest.approx(0.9)
    assert identity(broken) == Identity(right=6, missed=4, invented=4)
    assert identity(broken).f1 == pytest.approx(0.6)
    # Each pair of the longer piece overlaps by 6 / 10, and of the shorter by 4 / 10.
    assert hota(broken).associated == pytest.approx((6 * 0.6 + 4 * 0.4) / 10)
    assert hota(broken).score == pytest.approx(np.sqrt(0.52))


def test_missed_and_invented_people() -> None:
    half = frames(*[{1: 10, 2: None}] * 4, extra=1)
    assert clear(half) == Clear(matched=4, missed=4, invented=4, similarity=4.0)
    assert clear(half).mota == 0
    assert identity(half) == Identity(right=4, missed=4, invented=4)
    assert hota(half).detection == pytest.approx(4 / 12)
    assert hota(half).associated == 1


def test_a_person_who_comes_back_with_the_same_track_is_no_switch() -> None:
    back = frames({1: 10}, {1: None}, {1: 10}, {1: None}, {1: 11})
    assert clear(back).switches == 1


def test_pairs_of_the_frame_before_are_kept_although_others_are_more_similar() -> None:
    similar = np.array([[0.6, 0.9], [0.9, 0.6]])
    first = Frame(np.array([1, 2]), np.array([10, 20]), np.eye(2))
    second = Frame(np.array([1, 2]), np.array([10, 20]), similar)
    assert clear([first, second]) == Clear(matched=4, similarity=2 + 1.2)
    assert clear([second]) == Clear(matched=2, similarity=1.8)


def test_poor_matches_count_up_to_their_similarity() -> None:
    poor = hota(frames(*[{1: 10}] * 4, similarity=0.52))
    assert poor.matched.tolist() == [4] * 10 + [0] * 9
    assert poor.score == pytest.approx(10 / 19)


def test_empty_sequences_and_sums() -> None:
    assert clear([]).mota == identity([]).f1 == hota([]).score == 0
    assert clear(frames({}, {1: None})) == Clear(missed=1)
    one, two = frames(*[{1: 10}] * 6, *[{1: 11}] * 4), frames(*[{1: 10, 2: None}] * 4)
    total = hota(one) + hota(two)
    assert total.associated == pytest.approx((5.2 + 4) / 14)
    assert (clear(one) + clear(two)).mota == pytest.approx((14 - 1) / 18)
    assert (hota(one) + Hota.none()).score == hota(one).score


TRACKEVAL = """
import json, sys
import numpy as np
from trackeval.metrics import CLEAR, HOTA, Identity
metrics = {"HOTA": HOTA(), "CLEAR": CLEAR({"PRINT_CONFIG": False}), "Identity": Identity({"PRINT_CONFIG": False})}
results = {name: {} for name in metrics}
for number, frames in enumerate(json.load(open(sys.argv[1]))):
    data = {"gt_ids": [np.array(f[0], int) for f in frames], "tracker_ids": [np.array(f[1], int) for f in frames]}
    data["similarity_scores"] = [np.reshape(np.array(f[2], float), (len(f[0]), len(f[1]))) for f in frames]
    for side, name in (("gt", "gt_ids"), ("tracker", "tracker_ids")):
        known = np.unique(np.concatenate(data[name]))
        data[name] = [np.searchsorted(known, ids) for ids in data[name]]
        data[f"num_{side}_ids"] = len(known)
        data[f"num_{side}_dets"] = sum(map(len, data[name]))
    data["num_timesteps"] = len(frames)
    for name, metric in metrics.items():
        results[name][number] = metric.eval_sequence(data)
total = {name: metric.combine_sequences(results[name]) for name, metric in metrics.items()}
print(json.dumps([
    float(np.mean(total["HOTA"]["HOTA"])), float(np.mean(total["HOTA"]["DetA"])), float(np.mean(total["HOTA"]["AssA"])),
    float(total["CLEAR"]["MOTA"]), float(total["CLEAR"]["MOTP"]), int(total["CLEAR"]["IDSW"]),
    float(total["Identity"]["IDF1"]),
]))
"""


def random_sequence(seed: int) -> list[Frame]:
    """Up to eight people with tracks that break, boxes that are missed, invented and near each other."""
    random = np.random.default_rng(seed)
    made = []
    tracks = random.permutation(100)[:8]
    for _ in range(60):
        true = np.flatnonzero(random.random(8) < 0.7)
        swap = random.random(8) < 0.05
        tracks = np.where(swap, random.permutation(tracks), tracks)
        tracks = np.array([t + 100 * i for i, t in enumerate(tracks % 100)])
        found = np.concatenate([tracks[true][random.random(len(true)) < 0.8], random.permutation(range(900, 910))[:2]])
        similarity = random.random((len(true), len(found))) ** 3
        for row, person in enumerate(true):
            similarity[row, found == tracks[person]] = random.uniform(0.3, 1)
        made.append(Frame(true, found, similarity))
    made[7] = Frame(made[7].true, np.zeros(0, int), np.zeros((len(made[7].true), 0)))
    made[9] = Frame(np.zeros(0, int), made[9].found, np.zeros((0, len(made[9].found))))
    return made


@pytest.mark.slow
@needs_uv
def test_the_numbers_are_those_of_trackeval(tmp_path: Path) -> None:
    sequences = [random_sequence(seed) for seed in range(10)]
    (tmp_path / "in.json").write_text(json.dumps([[[v.tolist() for v in frame] for frame in s] for s in sequences]))
    judged = run_with("trackeval==1.3.0", TRACKEVAL, str(tmp_path / "in.json"))
    hotas = sum((hota(s) for s in sequences), Hota.none())
    clears = sum((clear(s) for s in sequences), Clear())
    identities = sum((identity(s) for s in sequences), Identity())
    ours = [
        hotas.score, hotas.detection, hotas.associated, clears.mota, clears.motp, clears.switches, identities.f1
    ]  # fmt: skip
    assert clears.switches > 20
    np.testing.assert_allclose(ours, judged, atol=1e-9)
