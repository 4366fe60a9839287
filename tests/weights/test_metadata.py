"""Weights files state the images that they were trained on."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import save_file
from support.exports import write_onnx_sum
from support.paths import PEOPLE, needs_people

from pipeline.coco.annotations import load_annotations
from pipeline.weights.metadata import TRAINING_IMAGES, encode_training_images, image_digest, training_images

TRAINED_HERE = {"fastpose_lite0_coco17": 5729, "nanodet_g_person": 1410}  # images, as in weights/README.md


def test_copies_of_an_image_in_other_folders_and_formats_have_its_digest() -> None:
    assert image_digest("a/000000012.jpg") == image_digest("s3://bucket/b/000000012.PNG")
    assert image_digest("000000012.jpg") != image_digest("000000013.jpg")


def test_images_of_several_files_are_joined_and_unknown_files_have_none(tmp_path: Path) -> None:
    paths = []
    for name, images in (("a", ["1.jpg", "2.jpg"]), ("b", ["2.jpg", "x/3.jpg"])):
        metadata = {TRAINING_IMAGES: encode_training_images(map(image_digest, images))}
        save_file({"weight": np.zeros(2)}, tmp_path / f"{name}.safetensors", metadata)
        paths.append(str(tmp_path / f"{name}.safetensors"))
    write_onnx_sum(tmp_path / "c.onnx", [(1, 3, 8, 8)])
    model = onnx.load(tmp_path / "c.onnx")
    onnx.helper.set_model_props(model, {TRAINING_IMAGES: encode_training_images([image_digest("4.jpg")])})
    onnx.save(model, tmp_path / "c.onnx")
    paths.append(str(tmp_path / "c.onnx"))
    save_file({"weight": np.zeros(2)}, tmp_path / "without.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    (tmp_path / "broken.onnx").write_bytes(b"x")
    save_file({"weight": np.zeros(2)}, tmp_path / "foreign.safetensors", {TRAINING_IMAGES: "5 images"})
    names = ("without.safetensors", "broken.safetensors", "broken.onnx", "missing.safetensors", "foreign.safetensors")
    others = [str(tmp_path / name) for name in names]
    found = training_images([*paths, *others])
    assert found.digests == {image_digest(f"{i}.jpg") for i in (1, 2, 3, 4)}
    assert found.unknown == tuple(others)


@pytest.mark.parametrize(("name", "images"), TRAINED_HERE.items())
def test_shipped_weights_state_the_images_that_they_were_trained_on_here(name: str, images: int) -> None:
    assert len(training_images([name]).digests) == images


@needs_people
def test_the_photographs_of_the_measurements_were_not_in_training() -> None:
    names = [image["file_name"] for image in load_annotations(str(PEOPLE / "val.json"))["images"]]
    trained = [image["file_name"] for image in load_annotations(str(PEOPLE / "train.json"))["images"]]
    assert not {image_digest(name) for name in names} & training_images(list(TRAINED_HERE)).digests
    assert {image_digest(name) for name in trained} == training_images(["fastpose_lite0_coco17"]).digests
