"""Cluster files against the schemas that Ray, KubeRay and Kubernetes publish, made strict; and the
Dockerfile's lint.
"""

import copy
import gzip
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs.execution.submission import SHIPPED
from tests.conftest import Cli

ROOT = Path(__file__).resolve().parents[3]
KUBERAY = json.loads(gzip.decompress((ROOT / "tests/schemas/kuberay-1.7.0.json.gz").read_bytes()))
KUBERNETES = "1.34"
LINE = (
    "--image",
    "registry/resnet-repro:1",
    "--artifacts",
    "s3://bucket/mlflow",
    "--nodes",
    "4",
    "--worker-selector",
    "eks.amazonaws.com/capacityType=SPOT",
)
GRID = ("grid", "table6", "--data", "cifar10", "--storage", "s3://bucket/resnet")


@pytest.fixture(scope="module")
def written(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The documents of each file that the command writes."""
    folder = tmp_path_factory.mktemp("manifests")
    done = cli("manifests", "--out", folder, *LINE, *GRID)
    assert done.returncode == 0, done.stderr
    return {path.stem: list(yaml.safe_load_all(path.read_text())) for path in folder.iterdir()}


def strict(schema: Any) -> Any:
    """The schema with objects closed to names it does not know, as a server that prunes would
    silently drop them.
    """
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(part) for name, part in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    elif "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@cache
def validator(kind: str) -> Any:
    """Of RayClusters or RayJobs; whether the schema is one itself is looked at once: it is slow."""
    schema = strict(KUBERAY[kind])
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    made = jsonschema.validators.validator_for(schema)
    made.check_schema(schema)
    return made(schema)


def check(document: dict[str, Any]) -> None:
    """Validate a RayCluster or RayJob."""
    validator(document["kind"]).validate(document)


def test_kuberay_accepts_what_is_written(written: dict[str, list[dict[str, Any]]]) -> None:
    ((cluster,), (job,)) = (written[name] for name in ("raycluster", "rayjob"))
    check(cluster)
    check(job)
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]  # one source


@pytest.mark.parametrize(
    "misspell",
    [
        lambda job: job["spec"].update(shutdownAfterJobFinish=True),
        lambda job: job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"].update(
            contaners=[]
        ),
        lambda job: job["spec"].update(backoffLimit="three"),
        lambda job: job["spec"]["rayClusterSpec"].pop("headGroupSpec"),
    ],
)
def test_a_misspelt_manifest_is_caught(
    written: dict[str, list[dict[str, Any]]], misspell: Any
) -> None:
    job = copy.deepcopy(written["rayjob"][0])
    misspell(job)
    with pytest.raises(jsonschema.ValidationError):
        check(job)


def test_kubernetes_accepts_mlflow_and_postgres(written: dict[str, list[dict[str, Any]]]) -> None:
    kinds = []
    for document in written["mlflow"]:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        kinds.append(document["kind"])
    assert kinds == [
        "PersistentVolumeClaim",
        "StatefulSet",
        "Service",
        "Deployment",
        "Service",
        "NetworkPolicy",
    ]
    broken = copy.deepcopy(written["mlflow"][3])
    broken["spec"]["template"]["spec"]["contaners"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_a_job_retries_resumes_and_ends(written: dict[str, list[dict[str, Any]]]) -> None:
    (job,) = written["rayjob"]
    spec = job["spec"]
    assert spec["backoffLimit"] > 0 and spec["submitterConfig"]["backoffLimit"] == 0
    assert (
        spec["activeDeadlineSeconds"] * (spec["backoffLimit"] + 1) == 168 * 3600
    )  # --hours, all tries together
    assert spec["preRunningDeadlineSeconds"] > 0 and spec["shutdownAfterJobFinishes"]
    assert spec["entrypoint"] == f"resnet-repro {' '.join(GRID)} --tracking http://mlflow:5000"
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    head = cluster["headGroupSpec"]["template"]["spec"]
    worker = cluster["workerGroupSpecs"][0]["template"]["spec"]
    for pod in (head, worker):
        assert any(
            volume.get("emptyDir", {}).get("medium") == "Memory" for volume in pod["volumes"]
        )
        assert {"name": "shared-memory", "mountPath": "/dev/shm"} in pod["containers"][0][
            "volumeMounts"
        ]
    assert (
        "nvidia.com/gpu" not in json.dumps(head) and not head["nodeSelector"]
    )  # drivers keep off GPUs and spot nodes
    assert worker["nodeSelector"] == {"eks.amazonaws.com/capacityType": "SPOT"}


def test_secrets_are_named_and_never_written(written: dict[str, list[dict[str, Any]]]) -> None:
    postgres, mlflow = written["mlflow"][1], written["mlflow"][3]
    (password,) = (
        e
        for e in postgres["spec"]["template"]["spec"]["containers"][0]["env"]
        if e["name"].endswith("PASSWORD")
    )
    assert password["valueFrom"]["secretKeyRef"] == {
        "name": "mlflow-server",
        "key": "POSTGRES_PASSWORD",
    }
    ray = json.dumps(written["rayjob"] + written["raycluster"])
    assert (
        "mlflow-server" not in ray and "POSTGRES" not in ray
    )  # whoever trains does not see the server's own secrets
    assert written["raycluster"][0]["metadata"]["name"] not in (
        "resnet-repro",
        "mlflow-server",
    )  # the operator's Secret for its token
    (server,) = mlflow["spec"]["template"]["spec"]["containers"]
    hosts = (
        next(word for word in server["args"] if word.startswith("--allowed-hosts="))
        .partition("=")[2]
        .split(",")
    )
    assert (
        {"mlflow", "mlflow:5000"} <= set(hosts)
        and "*" not in hosts
        and "--app-name=basic-auth" in server["args"]
    )
    assert not any("postgresql" in word for word in server["args"])


@pytest.mark.parametrize("path", ["cluster.yaml", "deploy/on-premise.yaml"])
def test_rays_launcher_accepts_its_files(path: str) -> None:
    config = yaml.safe_load((ROOT / path).read_text())
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    validate_config(prepare_config(copy.deepcopy(config)))
    assert set(config["file_mounts"].values()) >= {
        "pipeline",
        "jobs",
        "analysis",
        "pyproject.toml",
        "constraints.txt",
    }
    assert (
        "." not in config["file_mounts"].values()
    )  # its launcher would read .venv and results too
    started = " ".join(config["head_start_ray_commands"] + config["worker_start_ray_commands"])
    assert started.count("RAY_AUTH_MODE=token") == 2 and "--dashboard-host=127.0.0.1" in started
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"max_worker": 1}, schema)


def test_spot_nodes_train_and_the_head_does_not() -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"] == {"CPU": 0} and "InstanceMarketOptions" not in head["node_config"]
    spot = [
        n
        for n in config["available_node_types"].values()
        if "InstanceMarketOptions" in n["node_config"]
    ]
    assert spot and all(kind["max_workers"] > 0 for kind in spot)


def test_the_dockerfile_is_without_reproach() -> None:
    lint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert lint is not None
    done = subprocess.run(
        [lint, str(ROOT / "deploy/Dockerfile")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (("--worker-selector", "gpu"), "expected LABEL=VALUE"),
        (("grid", "table6", "--storage", "results"), "is on this machine"),
        (("grid", "table6", "--storage", "/mnt/shared"), "pods share no folder"),
        (("--artifacts", "mlflow", *GRID), "expected an address without a password"),
        (("--namespace", "A b", *GRID), "expected a name of small letters"),
        (("grid", "tabel6", "--storage", "s3://b/x", "--sed", "1"), "No such option"),
    ],
)
def test_what_is_wrong_is_said_before_a_file_is_written(
    cli: Cli, tmp_path: Path, changed: tuple[str, ...], says: str
) -> None:
    done = cli("manifests", "--out", tmp_path / "m", *LINE, *changed)
    assert (
        done.returncode == 2 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1
    )
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("path", ["deploy/Dockerfile", "deploy/on-premise.yaml", "cluster.yaml"])
def test_nodes_get_every_package_that_a_submitted_job_gets(path: str) -> None:
    text = (ROOT / path).read_text()
    packages = [name for name in SHIPPED if (ROOT / name).is_dir()]
    assert [
        name for name in packages if f"{name}: {name}" in text or f"{name} ./{name}" in text
    ] == packages
