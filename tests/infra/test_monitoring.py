"""Rules and dashboard checked against the metrics of a running job."""

import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml
from support.cluster import Cluster, flags, wait_for
from support.paths import PROJECT

MONITORING = PROJECT / "infra" / "monitoring"
RULES = MONITORING / "rules.yaml"
PROMTOOL = shutil.which("promtool")
METRICS = {  # name: label
    "ray_posemill_images_total": "status",
    "ray_posemill_people_total": None,
    "ray_posemill_shards_total": None,
    "ray_posemill_shards_left": None,
    "ray_posemill_shards_quarantined": None,
    "ray_posemill_stage_seconds_total": "stage",
    "ray_posemill_worker_seconds_total": "worker",
    "ray_posemill_worker_compute_seconds_total": "worker",
    "ray_posemill_worker_megabytes": None,
    "ray_posemill_gpu_megabytes": None,
}


def expressions() -> list[str]:
    """The PromQL expressions of the rules and the dashboard."""
    rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    return rules + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


@pytest.fixture(scope="module")
def exposed(cluster: Cluster, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Label names of each series of a running job, by series name; the collection contains a damaged file.

    The keys `statuses` and `stages` hold the values of the labels `status` and `stage`.
    """
    folder = tmp_path_factory.mktemp("metrics")
    (folder / "photos").mkdir()
    for path in photos.iterdir():
        (folder / "photos" / path.name).write_bytes(path.read_bytes())
    (folder / "photos" / "damaged.jpg").write_bytes(b"no image")
    cluster.behave(sleep=0.4)
    job = cluster.start("annotate", *flags(folder / "photos", folder / "run"))
    exposed: dict[str, set[str]] = {}

    def scrape() -> bool:
        with urllib.request.urlopen(cluster.metrics, timeout=10) as response:
            text = response.read().decode()
        for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? [\d.e+-]+", text, re.MULTILINE):
            exposed.setdefault(name, set()).update(re.findall(r'(\w+)="', labels or ""))
            if name == "ray_posemill_images_total":
                exposed.setdefault("statuses", set()).update(re.findall(r'status="(\w+)"', labels))
            if name == "ray_posemill_stage_seconds_total":
                exposed.setdefault("stages", set()).update(re.findall(r'stage="([\w ]+)"', labels))
        complete = METRICS.keys() <= exposed.keys() and {"ok", "unreadable"} <= exposed.get("statuses", set())
        return complete or job.poll() is not None

    wait_for(scrape, 120)
    output, _ = job.communicate(timeout=120)
    cluster.behave()
    assert job.returncode == 0, output
    return exposed


def test_a_job_exposes_its_metrics(exposed: dict[str, set[str]]) -> None:
    for name, label in METRICS.items():
        assert name in exposed
        assert label is None or label in exposed[name]
    assert {"wait for images", "crop", "poses", "decode"} <= exposed["stages"]


def test_rules_and_dashboard_query_existing_metrics(exposed: dict[str, set[str]]) -> None:
    # Exposed only after a death, a replacement or a retry; the names come from pipeline/fleet/display.py.
    rare = {"ray_posemill_retries_total", "ray_posemill_worker_deaths_total", "ray_posemill_workers_replaced_total"}
    display = (PROJECT / "pipeline" / "fleet" / "display.py").read_text()
    assert all(f'"{name.removeprefix("ray_").removesuffix("_total")}"' in display for name in rare)
    queried = {name for text in expressions() for name in re.findall(r"\bray_\w+", text)}
    assert len(queried) > 8
    assert queried - rare - {"ray_node_gpus_utilization"} <= exposed.keys()
    for text in expressions():
        for name, label in re.findall(r"(ray_\w+)\{(\w+)", text):
            assert label in exposed[name]
        for stages in re.findall(r'stage=~?"([^"]+)"', text):
            assert set(stages.split("|")) <= exposed["stages"] | {"detect"}


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_prometheus_accepts_the_rules_and_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    assert PROMTOOL
    subprocess.run([PROMTOOL, "check", "rules", RULES], check=True, capture_output=True)
    queries = [{"record": f"a:{number}", "expr": text} for number, text in enumerate(expressions())]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "a", "rules": queries}]}))
    subprocess.run([PROMTOOL, "check", "rules", tmp_path / "queries.yaml"], check=True, capture_output=True)
    configuration = (MONITORING / "prometheus.yaml").read_text().replace("/etc/prometheus/rules.yaml", str(RULES))
    (tmp_path / "prometheus.yaml").write_text(configuration)
    subprocess.run([PROMTOOL, "check", "config", tmp_path / "prometheus.yaml"], check=True, capture_output=True)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_alerts_fire_and_resolve_at_the_expected_times(tmp_path: Path) -> None:
    assert PROMTOOL

    def firing(alert: str, minute: int, count: int) -> dict:
        samples = [{"labels": "{}", "value": 1}] * count
        query = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
        return {"expr": query, "eval_time": f"{minute}m", "exp_samples": samples}

    def series(left: str, stages: str | None = None) -> list[dict]:
        shards = [{"series": "ray_posemill_shards_left", "values": left}]
        poses = 'ray_posemill_stage_seconds_total{stage="poses"}'
        return shards + ([{"series": poses, "values": stages}] if stages else [])

    images = [
        {"series": 'ray_posemill_images_total{status="ok"}', "values": "0+80x60"},
        {"series": 'ray_posemill_images_total{status="unreadable"}', "values": "0+20x60"},
    ]
    share = {
        "expr": "posemill:failed_share:rate15m",
        "eval_time": "20m",
        "exp_samples": [{"labels": "posemill:failed_share:rate15m", "value": 0.2}],
    }
    stalled, gone = "PosemillStalled", "PosemillDriverGone"
    cases = [
        # Workers stop reporting after 20 minutes; the job completes after 54 minutes.
        (
            images + series("60x54 0x2 _x30", "0+60x20 1200x36 _x30"),
            [
                firing(stalled, 20, 0), firing(stalled, 45, 1), firing(stalled, 58, 0), firing(gone, 62, 0), share,
                firing("PosemillFailedImages", 40, 1), firing("PosemillWorkerDeaths", 20, 0),
            ],
        ),
        # Two shards are given up, and the job ends.
        (
            [{"series": "ray_posemill_shards_quarantined", "values": "0x10 2x10 _x40"}],
            [firing("PosemillShardsQuarantined", at, count) for at, count in ((9, 0), (12, 1), (25, 1), (50, 0))],
        ),
        # No worker ever starts, so no stage is reported.
        (series("60x40"), [firing(stalled, 10, 0), firing(stalled, 20, 1), firing(gone, 20, 0)]),
        # The driver is killed, so its series disappear.
        (series("60x20 _x20", "0+60x20 _x20"), [firing(stalled, 20, 0), firing(gone, 20, 0), firing(gone, 29, 1)]),
    ]  # fmt: skip
    suite = {
        "rule_files": [str(RULES)],
        "tests": [
            {"interval": "1m", "input_series": inputs, "promql_expr_test": expected} for inputs, expected in cases
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(suite))
    done = subprocess.run([PROMTOOL, "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
