import pytest

from pipeline.training.options import Optimisation
from pipeline.training.settings import AnnotatedSet, DetectorToTrain, PoseToTrain, TrainSettings

PEOPLE = (AnnotatedSet(annotations="train.json", images="images"),)


@pytest.mark.parametrize("batch", [2, 4])
def test_a_batch_must_be_a_multiple_of_the_workers(batch: int) -> None:
    settings = TrainSettings(sets=PEOPLE, workers=3, optimisation=Optimisation(batch=batch))
    assert settings.problem() == (
        f"--optimisation.batch {batch} cannot be shared evenly by --workers 3; use a multiple"
    )
    assert TrainSettings(sets=PEOPLE, workers=2, optimisation=Optimisation(batch=batch)).problem() is None


def test_patience_needs_a_validation_set_and_mistakes_need_trained_weights() -> None:
    assert TrainSettings(sets=PEOPLE, patience=2).problem() == (
        "--patience counts validations; name a set by --validation, or leave it out"
    )
    assert TrainSettings(sets=PEOPLE, patience=2, validation=PEOPLE[0]).problem() is None
    detector = DetectorToTrain(hard_negatives=1.0)
    assert TrainSettings(sets=PEOPLE, detector=detector).problem() == (
        "--detector.hard_negatives counts mistakes of trained weights; name them by --detector.weights"
    )


def test_pruning_needs_trained_weights() -> None:
    pose = PoseToTrain(prune=0.3)
    assert TrainSettings(sets=PEOPLE, pose=pose).problem() == (
        "--pose.prune removes channels of trained weights; name them by --pose.weights"
    )
    assert TrainSettings(sets=PEOPLE, pose=pose.model_copy(update={"weights": "a.safetensors"})).problem() is None
