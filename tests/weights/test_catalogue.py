import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from support.paths import PROJECT

from pipeline import storage
from pipeline.detectors.darknet_detector import load_darknet
from pipeline.pose.networks import POSE_NETWORKS
from pipeline.pose.networks.recognition import Architecture, recognise
from pipeline.settings.tree import GIVEN, OWN_DETECTORS
from pipeline.weights import catalogue as catalogue_module
from pipeline.weights.__main__ import main
from pipeline.weights.catalogue import CatalogueEntry, WeightsError, catalogue, catalogued, confirm, local_file
from pipeline.weights.checkpoints import read_state_dict
from pipeline.weights.metadata import read_safetensors_metadata

OWN = "fastpose_lite0_coco17"


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, CatalogueEntry]:
    """An empty catalogue and an empty cache."""
    monkeypatch.setenv("POSEMILL_CACHE", str(tmp_path / "cache"))
    empty: dict[str, CatalogueEntry] = {}
    monkeypatch.setattr(catalogue_module, "catalogue", lambda: empty)
    return empty


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A web server for tmp_path/www."""
    (tmp_path / "www").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "www"))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


def test_all_entries_are_complete() -> None:
    raw = yaml.safe_load((PROJECT / "weights" / "catalogue.yaml").read_text())
    assert len({entry["name"] for entry in raw}) == len(raw) == len(catalogue())
    files = [entry.file for entry in catalogue().values() if entry.file]
    assert len(set(files)) == len(files)
    for entry in catalogue().values():
        assert entry.licence
        if entry.joints is None:
            assert entry.network in OWN_DETECTORS
            assert entry.network != GIVEN
            assert entry.url or entry.shipped
        else:
            Architecture(entry.network, entry.joints)
            assert entry.network in POSE_NETWORKS
            assert entry.input_size is not None
            assert entry.decode in ("argmax", "integral", "combined", "offset")
            if entry.name.startswith("alphapose"):
                assert "non-commercial" in entry.licence


@pytest.mark.parametrize("entry", [e for e in catalogue().values() if e.shipped], ids=lambda e: e.name)
def test_shipped_files_match_their_entries(entry: CatalogueEntry) -> None:
    path = local_file(entry.name)
    if entry.network == "darknet":
        network = load_darknet(None, path)
        assert network.size == entry.input_size
        assert (
            read_safetensors_metadata(path)["cfg"]
            == (PROJECT / "configs" / "detectors" / f"{entry.name}.cfg").read_text()
        )
    else:
        architecture = recognise(read_state_dict(path))
        assert architecture is not None
        assert (architecture.name, architecture.num_joints) == (entry.network, entry.joints)
    assert storage.file_sha256(path) == entry.sha256


def test_shipped_files_are_part_of_submitted_jobs_and_of_images() -> None:
    ignored = (PROJECT / ".rayignore").read_text().splitlines()
    in_no_image = (PROJECT / "infra" / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    for name in ["catalogue.yaml", *(entry.file for entry in catalogue().values() if entry.shipped)]:
        assert f"!/weights/{name}" in ignored
        assert f"!weights/{name}" in in_no_image


def test_the_readme_lists_the_catalogue() -> None:
    text = (PROJECT / "weights" / "README.md").read_text()
    for name in catalogue():
        assert f"`{name}`" in text


def test_entries_are_looked_up_by_name_and_by_file() -> None:
    by_file = catalogued("/some/folder/fast_res50_256x192.pth")
    assert by_file is not None
    assert by_file == catalogued("alphapose_fastpose_r50_coco17")
    assert catalogued("s3://bucket/mine.pth") is None


def test_an_entry_without_an_address_names_its_page() -> None:
    with pytest.raises(
        WeightsError,
        match=r"^alphapose_fastpose_r50_coco17 has no direct download address; download it from https://github",
    ):
        local_file("alphapose_fastpose_r50_coco17")


def test_a_digest_is_recorded_at_first_use_and_checked_after(entries, tmp_path: Path) -> None:
    entries["some"] = CatalogueEntry(name="some", network="hrnet_w32", joints=17, licence="x", file="some.pth")
    path = tmp_path / "some.pth"
    path.write_bytes(b"another network with the same file name")
    assert confirm(str(path), path, "simplepose_r50", 17) is None  # its digest is not recorded
    path.write_bytes(b"first")
    for _ in range(2):
        assert confirm(str(path), path, "hrnet_w32", 17) == entries["some"]
    path.write_bytes(b"second")
    with pytest.raises(
        WeightsError,
        match=r"some\.pth: the name is that of some, but the SHA-256 is .* in .*digests\.json; download it again",
    ):
        confirm(str(path), path, "hrnet_w32", 17)
    assert confirm("other.pth", path, "hrnet_w32", 17) is None  # not in the catalogue


def test_a_digest_of_the_catalogue_is_checked_at_first_use(entries, tmp_path: Path) -> None:
    entries["some"] = CatalogueEntry(name="some", network="darknet", licence="x", file="some.pth", sha256="0" * 64)
    (tmp_path / "some.pth").write_bytes(b"first")
    with pytest.raises(WeightsError, match="in the catalogue; download it again"):
        confirm("some.pth", tmp_path / "some.pth", "darknet")


def test_an_entry_with_an_address_is_downloaded_once(entries, server: str, tmp_path: Path) -> None:
    source = tmp_path / "www" / "some.weights"
    source.write_bytes(b"the weights")
    entries["some"] = CatalogueEntry(name="some", network="darknet", licence="x", url=f"{server}/some.weights")
    path = local_file("some")
    assert path.read_bytes() == b"the weights"
    assert path.is_relative_to(tmp_path / "cache")
    written = path.stat().st_mtime_ns
    assert local_file("some") == path
    assert path.stat().st_mtime_ns == written
    assert confirm("some", path, "darknet") == entries["some"]
    source.write_bytes(b"other weights, and longer")
    with pytest.raises(WeightsError, match="download it again"):
        confirm("some", local_file("some"), "darknet")


def test_list_shows_all_entries(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(catalogue())
    assert "shipped" in next(line for line in lines if line.startswith(OWN))


def test_show_accepts_names_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "yolov3-spp.weights"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["name"] == "yolov3_spp"
    assert main(["show", "nothing"]) == 2
    assert "nothing is not in the catalogue" in capsys.readouterr().err


def test_check_prints_the_network_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(PROJECT / "weights" / f"{OWN}.safetensors")]) == 0
    text = capsys.readouterr().out
    assert "fastpose_lite0 with 17 joints" in text
    assert f"catalogue: {OWN}" in text
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pth")
    assert main(["check", str(tmp_path / "x.pth")]) == 1
    assert "do not resemble any pose network" in capsys.readouterr().err
    (tmp_path / "yolov3.weights").write_bytes(b"some")
    assert main(["check", str(tmp_path / "yolov3.weights")]) == 0
    assert "darknet; checked when it is used as --detector.weights" in capsys.readouterr().out
    (tmp_path / "pose.onnx").write_bytes(b"some")
    assert main(["check", str(tmp_path / "pose.onnx")]) == 0
    assert "exported network; checked when it is used as --pose.weights or" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "none.pth")]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main(["chekc"]) == 2
    assert "pipeline.weights check FILE" in capsys.readouterr().err
