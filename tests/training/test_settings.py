import pytest

from pipeline.training.options import Optimisation
from pipeline.training.settings import AnnotatedSet, TrainSettings

PEOPLE = (AnnotatedSet(annotations="train.json", images="images"),)


@pytest.mark.parametrize("batch", [2, 4])
def test_workers_share_each_batch_evenly(batch: int) -> None:
    settings = TrainSettings(sets=PEOPLE, workers=3, optimisation=Optimisation(batch=batch))
    assert settings.problem() == (
        f"workers is 3, which cannot share optimisation.batch {batch} evenly; choose a multiple"
    )
    assert TrainSettings(sets=PEOPLE, workers=2, optimisation=Optimisation(batch=batch)).problem() is None
