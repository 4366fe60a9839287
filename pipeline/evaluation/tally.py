"""What groups of images have to say, so that they can be asked anywhere and their answers joined."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from pipeline.evaluation.errors import ErrorCounts, count_errors, join_errors
from pipeline.evaluation.keypoints import match_boxes, match_keypoints
from pipeline.evaluation.matching import Matches, join
from pipeline.evaluation.scenes import Scenes
from pipeline.evaluation.slices import Answers, match_slices
from pipeline.skeletons import Skeleton

_IMAGES_AT_ONCE = 2000

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Spread(Protocol):
    """Applies a function to things, in this process or in others, and gives its results in their order."""

    def __call__(self, function: Callable[[_In], _Out], things: Iterable[_In], /) -> Iterable[_Out]: ...


class Tally(NamedTuple):
    """Of some images.

    Attributes:
        matches: a question for each range of areas.
        slices: a question for each answer; None where nobody asked why.
        parts: of body, feet, face and hands, where the skeleton has several; people of any size.
        errors: None where nobody asked why.
    """

    matches: Matches
    slices: Matches | None
    parts: Mapping[str, Matches]
    errors: ErrorCounts | None


def tally(
    scenes: Scenes,
    skeleton: Skeleton | None,
    why: bool = False,
    of_images: Sequence[Answers] = (),
    spread: Spread = map,
) -> Tally:
    """What all images have to say; the same to the last bit however they are spread.

    Args:
        skeleton: to compare poses; None for boxes.
        why: also errors and slices of poses.
        of_images: what images can be told apart by, as in `scenes.answers`.
        spread: where groups of images are asked.
    """
    ask = partial(_tally_group, skeleton=skeleton, why=why, of_images=tuple(of_images))
    return _join(list(spread(ask, scenes.groups(_IMAGES_AT_ONCE))))


def _tally_group(scenes: Scenes, skeleton: Skeleton | None, why: bool, of_images: Sequence[Answers]) -> Tally:
    if skeleton is None:
        return Tally(match_boxes(scenes), None, {}, None)
    named = skeleton.parts if len(skeleton.parts) > 1 else {}
    parts = {part: match_keypoints(*_only(scenes, skeleton, joints)) for part, joints in named.items()}
    matches = match_keypoints(scenes, skeleton)
    if not why:
        return Tally(matches, None, parts, None)
    return Tally(matches, match_slices(scenes, skeleton, of_images), parts, count_errors(scenes, skeleton))


def _only(scenes: Scenes, skeleton: Skeleton, joints: list[int]) -> tuple[Scenes, Skeleton]:
    """The same images with some of the joints; people without any labelled are nobody to find."""
    annotated = scenes.annotated
    keypoints = annotated.keypoints[:, joints]
    nobody = annotated.crowd | ~(keypoints[..., 2] > 0).any(axis=1)
    sigmas = tuple(skeleton.oks_sigmas[j] for j in joints)
    found = scenes.found._replace(keypoints=scenes.found.keypoints[:, joints])
    fewer = replace(scenes, annotated=annotated._replace(keypoints=keypoints, ignored=nobody), found=found)
    return fewer, Skeleton(skeleton.name, tuple(skeleton.joints[j] for j in joints), (), (), sigmas)


def _join(tallies: list[Tally]) -> Tally:
    errors = [t.errors for t in tallies if t.errors is not None]
    slices = [t.slices for t in tallies if t.slices is not None]
    return Tally(
        join([t.matches for t in tallies]),
        join(slices) if slices else None,
        {part: join([t.parts[part] for t in tallies]) for part in tallies[0].parts},
        join_errors(errors) if errors else None,
    )
