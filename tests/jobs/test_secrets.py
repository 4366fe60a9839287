"""Credentials stay in the environment: no file of a run, no line of a job and no log of the cluster holds one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.cluster import FLAGS, Cluster
from support.paths import DEMO, DEMO_BOXES
from support.s3 import S3_ENVIRONMENT

from pipeline import storage
from pipeline.settings.tree import InputSettings
from pipeline.sources import plan_collection

SECRETS = (S3_ENVIRONMENT["AWS_SECRET_ACCESS_KEY"], os.environ["RAY_AUTH_TOKEN"])
IN_URI = "https://somebody:marked-secret@127.0.0.1:1/list.txt"


@pytest.mark.slow
def test_no_file_and_no_output_holds_a_secret(cluster: Cluster, s3_server: str, tmp_path: Path) -> None:
    cluster.behave()
    place = f"{s3_server}/secrets"
    for path in (DEMO / "photos").iterdir():
        storage.write_bytes(f"{place}/photos/{path.name}", path.read_bytes())
    arguments = [f"--input={place}/photos", *FLAGS]
    run = f"{place}/run"
    output = cluster.run("annotate", *arguments, f"--output={run}", "--draw=2", "--profile")
    output += cluster.run("evaluate", run, f"--annotations={DEMO_BOXES}", "--report")
    # The same for jobs that fail.
    output += cluster.run("annotate", "--input=s3://no-such-bucket/x", f"--output={run}2", code=2)
    output += cluster.run("annotate", *arguments, f"--output={run}3", f"--pose.weights={place}/none.pth", code=2)
    output += cluster.run("annotate", *arguments, f"--output={run}", "--pose.flip_test", code=2)
    files = list(storage.list_files(place))
    assert {"run.json", "report.html", "totals.json"} <= {storage.basename(entry.uri) for entry in files}
    written = [storage.read_bytes(entry.uri) for entry in files if "/photos/" not in entry.uri]
    logs = {path.name: path.read_bytes() for path in cluster.logs.rglob("*") if path.is_file()}
    assert any(name.startswith("worker-") and content for name, content in logs.items())
    written += logs.values()
    for secret in SECRETS:
        assert secret not in output
        assert not any(secret.encode() in content for content in written)


def test_a_password_in_a_uri_is_refused_and_not_printed(cluster: Cluster, tmp_path: Path) -> None:
    for flag in (f"--input={IN_URI}", f"--input={tmp_path}/list.txt --input.image_root={IN_URI}", f"--output={IN_URI}"):
        target = [] if flag.startswith("--output") else [f"--output={tmp_path / 'run'}"]
        output = cluster.run("annotate", *flag.split(), *target, code=2)
        assert "https://***@127.0.0.1:1/...: a URI with a password in it is refused" in output
        assert "marked-secret" not in output
    assert not (tmp_path / "run").exists()


SIGNED = "https://127.0.0.1:1/bucket/x?X-Amz-Date=20261122T000000Z&X-Amz-Signature=marked-secret"


def test_a_signed_address_is_refused_and_not_printed(cluster: Cluster, tmp_path: Path) -> None:
    for flag in (f"--input={SIGNED}", f"--pose.weights={SIGNED}", f"--pose.ensemble=[{{weights: '{SIGNED}'}}]"):
        given = [flag] if flag.startswith("--input") else [f"--input={DEMO / 'photos'}", flag]
        output = cluster.run("annotate", *given, f"--output={tmp_path / 'run'}", code=2)
        assert "https://127.0.0.1:1/bucket/x?***: a signed address is refused" in output
        assert "marked-secret" not in output
    assert not (tmp_path / "run").exists()


def test_a_password_in_a_list_is_refused_and_not_printed(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{IN_URI}\n")
    with pytest.raises(ValueError, match="password") as error:
        list(plan_collection(InputSettings(uri=str(tmp_path / "list.txt"))))
    assert "marked-secret" not in str(error.value)
