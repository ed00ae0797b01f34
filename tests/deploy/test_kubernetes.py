"""deploy/kubernetes, checked by the schemas of Kubernetes and by kubectl."""

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from .files import (
    INSTANCE,
    KUBERNETES,
    PORT,
    USER,
    VARIABLES,
    documents,
    env_file,
    load,
    needs,
)

MANIFESTS = [
    each
    for path in sorted(KUBERNETES.glob("*.yaml"))
    # Kinds that Kubernetes itself does not have.
    if path.name not in ("kustomization.yaml", "monitor.yaml")
    for each in documents(path)
]
KUSTOMIZATION = load(KUBERNETES / "kustomization.yaml")
LABELS = {"app.kubernetes.io/name": "lastword"}


def named(kind: str) -> Any:
    (manifest,) = (each for each in MANIFESTS if each["kind"] == kind)
    return manifest


POD = named("Deployment")["spec"]["template"]["spec"]
(GATEWAY,) = POD["containers"]
CONTAINERS = [GATEWAY, *POD["initContainers"]]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: each["kind"])
def test_manifest_matches_schema(manifest: Any, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


@needs("kubectl")
def test_kustomize_output_is_valid() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES)], stdout=subprocess.PIPE, check=True
    )
    manifests = {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (gateway,) = pod["containers"]

    for each in manifests.values():
        kubernetes_validate.validate(each, "1.37", strict=True)
    name = manifests["ConfigMap"]["metadata"]["name"]
    assert gateway["envFrom"][0]["configMapRef"]["name"] == name != "lastword"
    assert gateway["image"] == "registry.example.com/lastword:0.1.0"


def test_kustomization_lists_every_file() -> None:
    apart = {"kustomization.yaml", "secret.example.yaml", "monitor.yaml"}
    files = {path.name for path in KUBERNETES.glob("*.yaml")}

    assert set(KUSTOMIZATION["resources"]) == files - apart


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda each: each["name"])
def test_container_security_context_is_restricted(container: Any) -> None:
    """As the namespace's level "restricted" requires; the root is read-only."""
    security, pod = container["securityContext"], POD["securityContext"]
    writable = {each["mountPath"] for each in container["volumeMounts"]}

    assert pod["runAsNonRoot"] and pod["runAsUser"] == pod["fsGroup"] == USER
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["readOnlyRootFilesystem"] is True
    assert writable == {INSTANCE, "/tmp"}


def test_probes_and_service_share_port() -> None:
    (port,) = GATEWAY["ports"]
    (service,) = named("Service")["spec"]["ports"]
    probes = [GATEWAY[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness")]
    rule = named("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]

    assert port["containerPort"] == rule["port"] == PORT
    assert service["targetPort"] == port["name"]
    assert all(p == {"path": "/healthz", "port": port["name"]} for p in probes)
    assert GATEWAY["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_selectors_match_pod_labels() -> None:
    deployment = named("Deployment")["spec"]
    monitor = load(KUBERNETES / "monitor.yaml")["spec"]

    assert deployment["template"]["metadata"]["labels"] == LABELS
    assert deployment["selector"]["matchLabels"] == LABELS
    assert named("Service")["spec"]["selector"] == LABELS
    assert named("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == LABELS
    assert named("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == LABELS
    assert monitor["selector"]["matchLabels"] == LABELS


def test_config_maps_use_existing_settings() -> None:
    secret = named("Secret")["stringData"]
    (endpoint,) = load(KUBERNETES / "monitor.yaml")["spec"]["endpoints"]
    names = set(env_file(Path(KUBERNETES / "gateway.env"))) | set(secret)

    assert {name for name in names if name.startswith("GATEWAY_")} <= VARIABLES
    assert endpoint["authorization"]["credentials"]["key"] in secret
    assert all(value.startswith("HERE: ") for value in secret.values())
