import json

import pytest
from support.images import encode, gradient

from pipeline import storage
from pipeline.errors import UserError
from pipeline.run import Run, RunRefused
from pipeline.settings.tree import Settings
from pipeline.sources import plan_collection, write_manifest


def settings(folder: str, **changes: object) -> Settings:
    tree: dict[str, object] = {
        "input": storage.join(folder, "photos"),
        "output": storage.join(folder, "run"),
        "detector": {"name": "whole_image"},
    }
    return Settings.model_validate({**tree, **changes})


def planned(own: Settings) -> Run:
    """A run with one image in its collection, after planning."""
    storage.write_bytes(storage.join(own.input.uri or "", "a.jpg"), encode(gradient()))
    run = Run.create(own)
    run.plan()
    return run


def test_a_run_is_created_once_and_reopened(folder: str) -> None:
    run = planned(settings(folder))
    again = Run.create(settings(folder, fleet={"workers": 3}, draw=5))
    assert again.fingerprint == run.fingerprint, "settings that cannot change a row do not count"
    opened = Run.open(run.uri)
    assert opened.fingerprint == run.fingerprint
    assert opened.settings == run.settings
    described = json.loads(storage.read_bytes(run.path("run.json")))
    assert described["versions"]["torch"]
    assert len(described["results"]["digests"]["pose.weights"]) == 64


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"suppression": {"gamma": 20}}, "suppression.gamma was None, now 20"),
        ({"input": "others"}, r"input.uri was '.*', now 'others'"),
        ({"output": {"uri": "{run}", "candidates": True}}, "output.candidates was False, now True"),
        ({"compute": {"precision": "float32"}}, "compute.precision was 'auto', now 'float32'"),
    ],
)
def test_other_settings_are_refused_and_the_difference_is_named(folder: str, change: dict, named: str) -> None:
    run = planned(settings(folder))
    if "output" in change:
        change = {"output": {**change["output"], "uri": run.uri}}
    with pytest.raises(RunRefused, match=named):
        Run.create(settings(folder, **change))


def test_other_weights_of_the_same_name_are_refused(tmp_path) -> None:
    weights = tmp_path / "w.bin"
    weights.write_bytes(b"1")
    changes = {"pose": {"weights": str(weights)}}
    run = planned(settings(str(tmp_path), **changes))
    weights.write_bytes(b"2")
    with pytest.raises(RunRefused, match=r"digests\.pose\.weights was"):
        Run.create(settings(str(tmp_path), **changes))
    weights.write_bytes(b"1")
    moved = tmp_path / "elsewhere.bin"
    moved.write_bytes(b"1")
    assert Run.create(settings(str(tmp_path), pose={"weights": str(moved)})).fingerprint == run.fingerprint


def test_a_directory_that_is_not_a_run_is_refused(folder: str) -> None:
    with pytest.raises(RunRefused, match=r"has no run\.json"):
        Run.open(folder)
    run = planned(settings(folder))
    storage.delete(run.manifest_uri)
    with pytest.raises(RunRefused, match="planning was interrupted"):
        run.manifest()
    storage.write_bytes(run.path("run.json"), b"{")
    with pytest.raises(RunRefused, match="not valid JSON"):
        Run.open(run.uri)


def test_existing_parts_are_done_and_not_quarantined(folder: str) -> None:
    for i in range(3):
        storage.write_bytes(storage.join(folder, "photos", f"{i}.jpg"), encode(gradient()))
    own = settings(folder, input={"uri": storage.join(folder, "photos"), "shard_size": 1})
    run = Run.create(own)
    write_manifest(run.manifest_uri, plan_collection(own.input))
    first, second, _ = run.manifest().counts
    assert run.parts() == {}
    storage.write_bytes(run.part_uri(first), b"12345")
    assert run.parts() == {first: 5}
    for shard in (first, second):
        storage.write_bytes(run.quarantine_uri(shard), b'{"reason": "decoder crashed"}')
    assert run.quarantined() == {second: "decoder crashed"}, "a shard with a part is not quarantined"
    assert [s.id for s in run.manifest().shards(without=run.parts())] == list(run.manifest().counts)[1:]


def test_a_mistake_does_not_claim_the_directory(folder: str) -> None:
    wrong = Run.create(settings(folder, input=storage.join(folder, "phtoos")))
    with pytest.raises((UserError, storage.MissingObject)):
        wrong.plan()
    assert not storage.exists(wrong.path("run.json"))
    assert planned(settings(folder)).uri == wrong.uri


def test_settings_without_manifest_and_parts_are_replaced(folder: str) -> None:
    first = planned(settings(folder, draw=1))
    storage.delete(first.manifest_uri)  # as an earlier version left a directory whose planning failed
    second = planned(settings(folder, suppression={"gamma": 20}))
    assert second.fingerprint != first.fingerprint
    assert Run.open(second.uri).fingerprint == second.fingerprint
    storage.delete(second.manifest_uri)
    storage.write_bytes(second.part_uri("x"), b"a part")
    with pytest.raises(RunRefused, match=r"suppression\.gamma was 20"):
        Run.create(settings(folder))


def test_a_manifest_without_settings_is_planned_again(folder: str) -> None:
    first = planned(settings(folder))
    storage.delete(first.path("run.json"))  # killed between the two files
    storage.write_bytes(storage.join(folder, "others", "b.jpg"), encode(gradient()))
    second = Run.create(settings(folder, input=storage.join(folder, "others")))
    (shard,) = second.plan().shards()
    assert shard.keys == ("b.jpg",)


def test_two_commands_with_other_settings_at_once_do_not_share_a_directory(folder: str) -> None:
    first = planned(settings(folder))
    other = Run.create(settings(folder + "2", suppression={"gamma": 20}))
    write_manifest(first.manifest_uri, plan_collection(first.settings.input), other.fingerprint)
    with pytest.raises(RunRefused, match="started in this directory at the same time"):
        first.plan()


def test_a_directory_claimed_while_planning_is_left_alone(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = planned(settings(folder))
    run_json = storage.read_bytes(other.path("run.json"))
    storage.delete(other.path("run.json"))
    own = Run.create(settings(folder, suppression={"gamma": 20}))
    plan = plan_collection

    def while_another_command_finishes(*arguments, **named):
        yield from plan(*arguments, **named)
        storage.write_bytes(other.path("run.json"), run_json)

    monkeypatch.setattr("pipeline.run.directory.plan_collection", while_another_command_finishes)
    with pytest.raises(RunRefused, match="another command was started in this directory"):
        own.plan()
    assert other.manifest().fingerprint == other.fingerprint
