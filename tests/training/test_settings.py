import pytest

from pipeline.training.options import Optimisation
from pipeline.training.settings import AnnotatedSet, PoseToTrain, TrainSettings

PEOPLE = (AnnotatedSet(annotations="train.json", images="images"),)


@pytest.mark.parametrize("batch", [2, 4])
def test_a_batch_must_be_a_multiple_of_the_workers(batch: int) -> None:
    settings = TrainSettings(sets=PEOPLE, workers=3, optimisation=Optimisation(batch=batch))
    assert settings.problem() == (
        f"--optimisation.batch {batch} cannot be shared evenly by --workers 3; use a multiple"
    )
    assert TrainSettings(sets=PEOPLE, workers=2, optimisation=Optimisation(batch=batch)).problem() is None


def test_pruning_needs_trained_weights() -> None:
    pose = PoseToTrain(prune=0.3)
    assert TrainSettings(sets=PEOPLE, pose=pose).problem() == (
        "--pose.prune removes channels of trained weights; name them by --pose.weights"
    )
    assert TrainSettings(sets=PEOPLE, pose=pose.model_copy(update={"weights": "a.safetensors"})).problem() is None
