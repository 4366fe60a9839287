"""Checks of the cluster files that need no cluster."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import ray
import yaml
from ray.autoscaler._private.util import fillout_defaults, validate_config
from support.cluster import free_port, wait_for
from support.paths import PROJECT

from pipeline.settings.flags import parse_settings

INFRA = PROJECT / "infra"
# The fields of ray.io/v1 that these files use; names from KubeRay's API reference (v1.6).
RAY_JOB = {
    "entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "submitterPodTemplate",
    "rayClusterSpec",
}  # fmt: skip
RAY_CLUSTER = {
    "rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs",
}  # fmt: skip
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def load(name: str) -> dict:
    """The last document of a YAML file below infra/."""
    return list(yaml.safe_load_all((INFRA / name).read_text()))[-1]


def clusters() -> list[dict]:
    """The RayCluster specs of rayjob.yaml and raycluster.yaml."""
    job, cluster = load("kubernetes/rayjob.yaml"), load("kubernetes/raycluster.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert job["spec"].keys() == RAY_JOB
    return [job["spec"]["rayClusterSpec"], cluster["spec"]]


@pytest.mark.parametrize("number", [0, 1])
def test_pods_match_the_kubernetes_schema(number: int) -> None:
    spec = clusters()[number]
    assert spec.keys() == RAY_CLUSTER
    assert spec["rayVersion"] == ray.__version__
    assert spec["authOptions"] == {"mode": "token"}
    (workers,) = spec["workerGroupSpecs"]
    assert workers.keys() == GROUP
    assert workers["minReplicas"] == workers["replicas"] == 0 < workers["maxReplicas"]
    for group in (spec["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"]["runAsNonRoot"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            pod | {"spec": {"container": []}}, kubernetes_validate.latest_version(), strict=True
        )


def pod_templates() -> list[dict]:
    """Of the submitter, and of the head and the workers of both files."""
    templates = [load("kubernetes/rayjob.yaml")["spec"]["submitterPodTemplate"]]
    for spec in clusters():
        templates += [group["template"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    return templates


def test_the_submitter_matches_the_kubernetes_schema() -> None:
    submitter = load("kubernetes/rayjob.yaml")["spec"]["submitterPodTemplate"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": submitter}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    assert submitter["restartPolicy"] == "Never"


def test_all_containers_are_allowed_in_a_restricted_namespace() -> None:
    """What the `restricted` pod security standard asks for, also of the autoscaler, which the operator adds."""
    contexts = [container["securityContext"] for t in pod_templates() for container in t["spec"]["containers"]]
    contexts += [spec["autoscalerOptions"]["securityContext"] for spec in clusters()]
    assert len(contexts) == 7
    for context in contexts:
        assert context["runAsNonRoot"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"]["type"] == "RuntimeDefault"
    volumes = [volume for t in pod_templates() for volume in t["spec"].get("volumes", [])]
    assert all(volume.keys() == {"name", "emptyDir"} for volume in volumes)


def test_pods_are_not_moved_and_fit_their_nodes() -> None:
    """12 GiB are left on a node of 16 GB beside the system's own pods; the object store fits into /dev/shm."""
    units = {"Mi": 2**20, "Gi": 2**30}

    def size(quantity: str) -> int:
        return int(quantity[:-2]) * units[quantity[-2:]]

    for template in pod_templates():
        annotations = template["metadata"]["annotations"]
        assert annotations["karpenter.sh/do-not-disrupt"] == "true"
        assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        resources = template["spec"]["containers"][0]["resources"]
        assert size(resources["requests"]["memory"]) == size(resources["limits"]["memory"]) <= 12 * 2**30
        on_disk = sum(
            size(v["emptyDir"]["sizeLimit"])
            for v in template["spec"].get("volumes", [])
            if v["emptyDir"].get("medium") != "Memory"
        )
        assert size(resources["requests"]["ephemeral-storage"]) > on_disk
    for spec in clusters():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            volumes = {v["name"]: v["emptyDir"] for v in group["template"]["spec"]["volumes"]}
            mounts = {m["mountPath"]: m["name"] for m in group["template"]["spec"]["containers"][0]["volumeMounts"]}
            memory = volumes[mounts["/dev/shm"]]
            assert memory["medium"] == "Memory"
            assert int(group["rayStartParams"]["object-store-memory"]) < size(memory["sizeLimit"])


@pytest.mark.parametrize("name", ["rayjob", "raycluster"])
def test_the_service_account_of_the_pods_is_defined(name: str) -> None:
    account, cluster = yaml.safe_load_all((INFRA / "kubernetes" / f"{name}.yaml").read_text())
    kubernetes_validate.validate(account, kubernetes_validate.latest_version(), strict=True)
    spec = cluster["spec"].get("rayClusterSpec", cluster["spec"])
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert group["template"]["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_the_pod_monitor_selects_every_pod() -> None:
    monitor = load("kubernetes/podmonitor.yaml")
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert monitor["spec"]["selector"] == {"matchLabels": {"ray.io/is-ray-node": "yes"}}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (relabeling,) = endpoint["relabelings"]
    assert f'{relabeling["targetLabel"]}="{relabeling["replacement"]}"' in (INFRA / "monitoring/rules.yaml").read_text()
    for spec in clusters():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            (container,) = group["template"]["spec"]["containers"]
            ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
            assert ports[endpoint["port"]] == group["rayStartParams"]["metrics-export-port"]


def test_the_documented_command_wraps_the_rules_for_the_operator() -> None:
    text = (INFRA / "kubernetes/podmonitor.yaml").read_text()
    (command,) = re.findall(r"#   (\{ printf .*?\}) \| kubectl", text, re.DOTALL)
    done = subprocess.run(
        ["bash", "-c", command.replace("\n#", "\n")], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    wrapped = yaml.safe_load(done.stdout)
    assert (wrapped["apiVersion"], wrapped["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert wrapped["spec"] == load("monitoring/rules.yaml")


def test_a_rayjob_is_retried() -> None:
    assert load("kubernetes/rayjob.yaml")["spec"]["backoffLimit"] > 1


def test_the_aws_file_matches_rays_schema() -> None:
    config = fillout_defaults(load("aws/cluster.yaml"))
    validate_config(config)
    gpu = config["available_node_types"]["gpu"]
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert gpu["min_workers"] == 0 < gpu["max_workers"] == config["max_workers"]
    assert config["docker"]["head_image"].endswith(":cpu"), "the head has no GPU"
    assert config["docker"]["worker_image"].endswith(":cuda")
    assert "AccessKey" not in (INFRA / "aws" / "cluster.yaml").read_text()
    with pytest.raises(Exception, match="head_node_type"):
        validate_config(config | {"head_node_type": "none"})


def test_compose_requires_a_token_and_publishes_local_ports_only() -> None:
    services = load("compose/compose.yaml")["services"]
    assert {"s3", "head", "worker"} <= services.keys()
    for name in ("head", "worker"):
        environment = services[name]["environment"]
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_AUTH_TOKEN"].startswith("${RAY_AUTH_TOKEN:?")
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert not service["image"].endswith(":latest")


def test_services_start_when_those_they_need_are_healthy() -> None:
    services = load("compose/compose.yaml")["services"]
    for service in services.values():
        for name, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert services[name]["healthcheck"]["test"]
    assert "up -d --wait" in (INFRA / "compose" / "compose.yaml").read_text()


@pytest.mark.slow
def test_a_job_can_be_submitted_when_the_head_is_healthy(tmp_path: Path) -> None:
    """The head of compose.yaml, on other ports."""
    head = load("compose/compose.yaml")["services"]["head"]
    ports = {"8265": free_port(), "52365": free_port(), "8080": free_port(), "6379": free_port()}

    def moved(text: str) -> str:
        for port, other in ports.items():
            text = text.replace(port, str(other))
        return text

    kind, check = head["healthcheck"]["test"]
    assert kind == "CMD-SHELL"
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 2,
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = moved(head["command"]).replace("0.0.0.0", "127.0.0.1")
    command += f" --port={ports['6379']} --dashboard-port={ports['8265']} --node-ip-address=127.0.0.1"
    log = (tmp_path / "head.log").open("w")
    server = subprocess.Popen(shlex.split(command), env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: subprocess.run(["bash", "-c", moved(check)], stderr=subprocess.DEVNULL).returncode == 0, 120)
        submit = ["ray", "job", "submit", "--address", f"http://127.0.0.1:{ports['8265']}", "--", "true"]
        done = subprocess.run(submit, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        server.terminate()
        server.wait()


def commands() -> list[tuple[str, str]]:
    """File name and flags of each `jobs/annotate.py` command in the files below infra/."""
    results = []
    for path in sorted(p for p in INFRA.rglob("*") if p.suffix == ".yaml" or p.name == "Dockerfile"):
        text = re.sub(r"\\\n# +|\n +(?=--)", " ", path.read_text())
        results += [(path.name, match) for match in re.findall(r"jobs/annotate\.py ([^'\n]+)", text)]
    return results


@pytest.mark.parametrize(("name", "flags"), commands())
def test_documented_commands_have_valid_settings(name: str, flags: str) -> None:
    settings = parse_settings(shlex.split(flags), "")
    assert settings.input.uri
    if name != "compose.yaml":
        # The cluster has no GPU when the job starts, so the device and the number of workers must be set.
        assert settings.compute.device == "cuda"
        assert settings.fleet.workers == 16


def test_each_cluster_file_documents_a_command() -> None:
    assert {name for name, _ in commands()} == {"rayjob.yaml", "raycluster.yaml", "cluster.yaml", "compose.yaml"}


def test_images_run_unprivileged_and_contain_the_project() -> None:
    text = (INFRA / "docker" / "Dockerfile").read_text()
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)
    assert [name for _, name in stages] == ["base", "cuda", "cpu"]
    assert all(source == "base" for source, _ in stages[1:])
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["posemill"]
    excluded = (INFRA / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    for needed in ("jobs", "pipeline", "configs", "weights", "pyproject.toml", "README.md"):
        assert (PROJECT / needed).exists()
        assert needed not in excluded
    for stage in text.split("FROM ")[2:]:
        assert "RUN uv pip install --no-cache --no-deps -e ." in stage, (
            "jobs and workers must be able to import the project"
        )
    pins = re.findall(r"grep -oE '(\S+)' pyproject\.toml", text)
    assert len(pins) == 1
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    matches = re.findall(pins[0].replace("(", "(?:"), (PROJECT / "pyproject.toml").read_text())
    assert sorted(matches) == sorted(d for d in declared if d.startswith("torch"))


def test_a_job_starts_with_only_its_folder_installed(tmp_path: Path) -> None:
    """As in an image, where `pip install -e` adds only the project's folder to the import path."""
    image = tmp_path / "app"
    for needed in ("jobs", "pipeline", "configs"):
        shutil.copytree(PROJECT / needed, image / needed, ignore=shutil.ignore_patterns("__pycache__"))
    (image / "weights").mkdir()
    for path in (PROJECT / "weights").iterdir():
        (image / "weights" / path.name).symlink_to(path)

    def start(*folders: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
        job = [sys.executable, "-S", image / "jobs" / "annotate.py", "--print-config"]  # -S: no editable install
        return subprocess.run(job, cwd=tmp_path, env=environment, capture_output=True, text=True)

    dependencies = Path(sysconfig.get_path("purelib"))
    assert "No module named 'pipeline'" in start(dependencies).stderr
    done = start(image, dependencies)
    assert done.returncode == 0, done.stderr
    assert "detector:" in done.stdout
