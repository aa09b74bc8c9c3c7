"""The Kubernetes manifests: right by Kubernetes' own schemas, and at one with each other and with our configuration.

Custom resources (cert-manager's, the Prometheus operator's) have no schema here: they are held to the few fields
that we write.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flyball_core.addresses import split_address
from flyball_core.inputs import Mode
from flyball_core.version import __version__
from flyball_policies.reading import read_document
from flyball_service.config import Config
from flyball_service.reading import read_config
from flyball_service.tls import read_spiffe
from kustomizations import KINDS, Document, found, load, rendered, workloads
from project_paths import IMAGES, KUBERNETES

VERSIONS = ("1.33", "1.37")
"""Of Kubernetes: the oldest and the newest that the manifests are held to."""
CUSTOM = {
    ("cert-manager.io/v1", "Certificate"): {"secretName", "issuerRef", "privateKey", "duration", "renewBefore"},
    ("cert-manager.io/v1", "Issuer"): set(),
    ("monitoring.coreos.com/v1", "PodMonitor"): {"selector", "podMetricsEndpoints"},
}
"""Custom resources, with the fields that each must have."""
FILES = sorted(path for path in KUBERNETES.rglob("*.yaml") if "config" not in path.parts)
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def is_custom(document: Document) -> bool:
    """Whether a schema of Kubernetes itself does not know it."""
    return (document["apiVersion"], document["kind"]) in CUSTOM


def pod(workload: Document) -> dict[str, Any]:
    """The spec of a workload's pods."""
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def component(documents: list[Document], name: str) -> Document:
    """The workload of one component."""
    (one,) = (each for each in workloads(documents) if each["metadata"]["name"] == f"flyball-{name}")
    return one


def configs(kind: str, tmp_path: Path) -> Iterator[tuple[str, str, Config]]:
    """ConfigMap, file name and what is read from each configuration file, as pods would find them."""
    for document in rendered(kind):
        if document["kind"] != "ConfigMap":
            continue
        name = document["metadata"]["name"]
        folder = tmp_path / kind / name
        folder.mkdir(parents=True)
        for file, text in document["data"].items():
            (folder / file).write_text(text)
        for file in document["data"]:
            if not file.startswith("policy-"):
                yield name, file, read_config(folder / file)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_right_by_the_schema(kind: str, version: str) -> None:
    """Each resource of Kubernetes itself passes the strict schema: no unknown field, no wrong type."""
    documents = [document for document in rendered(kind) if not is_custom(document)]

    assert len(documents) >= 10
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_check_can_fail(kind: str) -> None:
    """A misspelt field of a manifest is found."""
    document = found(rendered(kind), "DaemonSet", "flyball-agent")
    pod(document)["runtimeClass"] = "nvidia"

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_no_file_holds_a_secret_or_a_registry(path: Path) -> None:
    """No manifest carries a Secret, a key, or the address of a registry: those are the operator's."""
    for document in load(path):
        assert document["kind"] != "Secret"
    text = path.read_text()

    assert "PRIVATE KEY" not in text
    assert [] == [image for image in re.findall(r"image: (\S+)", text) if "/" in image]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(KUBERNETES)))
def test_custom_resources_have_what_we_rely_on(path: Path) -> None:
    """Each custom resource is one that we know, and has the fields that our use of it needs."""
    for document in load(path):
        if "." in document["apiVersion"].partition("/")[0] and not document["apiVersion"].partition("/")[0].endswith(
            ".k8s.io"
        ):
            needed = CUSTOM[document["apiVersion"], document["kind"]]

            assert needed <= set(document["spec"]), document["metadata"]["name"]


@pytest.mark.parametrize("kind", KINDS)
def test_selectors_select_the_pods(kind: str) -> None:
    """Services, budgets, network policies and pod monitors select the labels that a workload's pods carry."""
    documents = rendered(kind) + load(KUBERNETES / "pod-monitors" / "pod-monitors.yaml")
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in workloads(documents)]
    selecting = {
        "Service": lambda spec: spec["selector"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        "PodMonitor": lambda spec: spec["selector"]["matchLabels"],
        "StatefulSet": lambda spec: spec["selector"]["matchLabels"],
        "DaemonSet": lambda spec: spec["selector"]["matchLabels"],
    }
    asked = [selecting[one["kind"]](one["spec"]) for one in documents if one["kind"] in selecting]

    assert len(asked) >= 8
    for selector in asked:
        assert 1 == sum(selector.items() <= each.items() for each in labels), selector


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_mentioned_is_there(kind: str) -> None:
    """ConfigMaps, Secrets, service accounts, services and volumes that a workload mentions exist or are documented."""
    documents = rendered(kind)
    made = {document["spec"]["secretName"] for document in documents if document["kind"] == "Certificate"}
    maps = {document["metadata"]["name"] for document in documents if document["kind"] == "ConfigMap"}
    accounts = {document["metadata"]["name"] for document in documents if document["kind"] == "ServiceAccount"}
    for workload in workloads(documents):
        volumes = pod(workload)["volumes"]
        claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())]
        names = [volume["name"] for volume in volumes] + claims
        secrets = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
        secrets |= {
            source["secret"]["name"] for volume in volumes for source in volume.get("projected", {}).get("sources", ())
        }

        assert len(set(names)) == len(names)
        for container in (*pod(workload)["containers"], *pod(workload).get("initContainers", ())):
            assert {mount["name"] for mount in container["volumeMounts"]} <= set(names)
        assert {volume["configMap"]["name"] for volume in volumes if "configMap" in volume} <= maps
        assert pod(workload)["serviceAccountName"] in accounts
        assert secrets - made <= ({"flyball-kafka"} if kind == "kafka" else set())


@pytest.mark.parametrize("kind", KINDS)
def test_probes_and_ports_are_those_of_the_configuration(kind: str, tmp_path: Path) -> None:
    """Each probe asks /live or /ready at a port that the configuration in the ConfigMap listens on."""
    documents = rendered(kind)
    http = {
        "controller": {config.controller.http for _, _, config in configs(kind, tmp_path) if config.controller},
        "agent": {config.agent.http for _, _, config in configs(kind, tmp_path / "again") if config.agent},
    }
    for name, addresses in http.items():
        workload = component(documents, name)
        (container,) = pod(workload)["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        annotations = workload["spec"]["template"]["metadata"]["annotations"]

        assert {("0.0.0.0", ports["http"])} == {split_address(address) for address in addresses}
        assert str(ports["http"]) == annotations["prometheus.io/port"]
        assert ["/live", "/live", "/ready"] == [container[probe]["httpGet"]["path"] for probe in PROBES]
        assert {"http"} == {container[probe]["httpGet"]["port"] for probe in PROBES}


@pytest.mark.parametrize("kind", KINDS)
def test_configurations_are_read_and_fit_their_mounts(kind: str, tmp_path: Path) -> None:
    """Every file in a ConfigMap is read without complaint; each path in it lies where a volume is mounted."""
    documents = rendered(kind)
    for map_name, file, config in configs(kind, tmp_path):
        name = "controller" if map_name == "flyball-controller" else "agent"
        workload = component(documents, name)
        (container,) = pod(workload)["containers"]
        mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
        written = [str(config.state)] + ([config.log] if name == "controller" and "://" not in config.log else [])
        read = [config.tls.folder] if config.tls else []
        read += [config.kafka.tls_folder] if config.kafka and config.kafka.tls_folder else []

        assert all(any(path.startswith(mount) for mount in mounts) for path in written), written
        assert {str(path) for path in read} <= set(mounts)
        assert container["args"][0] == name
        if name == "controller":
            assert [name, "--config", f"/etc/flyball/{file}"] == container["args"]


@pytest.mark.parametrize("kind", KINDS)
def test_policies_start_in_advise(kind: str, tmp_path: Path) -> None:
    """Each policy document that a controller is given is right, and says `advise`: nothing is changed by itself."""
    for _, _, config in configs(kind, tmp_path):
        for pool, path in (config.controller.policies if config.controller else {}).items():
            document = read_document(path.read_text(), path.name)

            assert Mode.ADVISE == document.mode
            assert (pool,) == tuple(document.pools)


@pytest.mark.parametrize("kind", KINDS)
def test_an_agents_file_bears_its_nodes_name(kind: str, tmp_path: Path) -> None:
    """The DaemonSet asks for NODE.yaml; each such file names its agent after the node, and no engine twice."""
    (container,) = pod(component(rendered(kind), "agent"))["containers"]
    node = next(one for one in container["env"] if one["name"] == "NODE_NAME")
    agents = {file: config.agent for _, file, config in configs(kind, tmp_path) if config.agent}
    engines = [engine.engine for agent in agents.values() for engine in agent.engines]

    assert ["agent", "--config", "/etc/flyball/$(NODE_NAME).yaml"] == container["args"]
    assert "spec.nodeName" == node["valueFrom"]["fieldRef"]["fieldPath"]
    assert {file.removesuffix(".yaml") for file in agents} == {agent.name for agent in agents.values()}
    assert len(set(engines)) == len(engines)


def test_each_agent_has_a_certificate_of_its_name(tmp_path: Path) -> None:
    """With the embedded log each agent's certificate carries its name, and only its own is mounted into its pod."""
    documents = rendered("embedded")
    agents = {config.agent.name for _, _, config in configs("embedded", tmp_path) if config.agent}
    ids = [uri for one in documents if one["kind"] == "Certificate" for uri in one["spec"].get("uris", ())]
    workload = component(documents, "agent")
    (tls,) = (volume for volume in pod(workload)["volumes"] if volume["name"] == "tls")
    paths = {item["path"] for source in tls["projected"]["sources"] for item in source["secret"]["items"]}
    (mount,) = (one for one in pod(workload)["containers"][0]["volumeMounts"] if one["name"] == "tls")

    assert agents == {one.name for uri in ids if (one := read_spiffe(uri)) is not None and one.role == "agent"}
    assert {f"agent-{name}/{file}" for name in agents for file in ("tls.crt", "tls.key", "ca.crt")} == paths
    assert "agent-$(NODE_NAME)" == mount["subPathExpr"]


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_name_the_doors(kind: str, tmp_path: Path) -> None:
    """Each certificate carries exactly one id that our services understand; the controllers' also its addresses."""
    documents = rendered(kind) + load(KUBERNETES / "operator-certificate.yaml")
    leaves = [one["spec"] for one in documents if one["kind"] == "Certificate" and not one["spec"].get("isCA")]
    (names,) = (one["dnsNames"] for one in leaves if "dnsNames" in one)
    called = [
        address for _, _, config in configs(kind, tmp_path) if config.agent for address in config.agent.controllers
    ]
    hosts = {split_address(address)[0] for address in called if not address.startswith("127.")}

    assert all(len(one["uris"]) == 1 and read_spiffe(one["uris"][0]) is not None for one in leaves)
    assert all(f"*.{host.partition('.')[2]}" in names for host in hosts)
    assert kind == "kafka" or hosts


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_ours_and_of_this_version(kind: str) -> None:
    """Each image is one that a container file here builds, at the version of this source."""
    images = {
        container["image"]
        for workload in workloads(rendered(kind))
        for container in (*pod(workload)["containers"], *pod(workload).get("initContainers", ()))
    }

    assert images <= {f"flyball-{name}:{__version__}" for name in IMAGES}


@pytest.mark.parametrize("kind", KINDS)
def test_rights_are_the_least(kind: str) -> None:
    """Pods pass Pod Security's `restricted`, but for the agent's spool on the node and the step that hands it over."""
    for workload in workloads(rendered(kind)):
        spec = pod(workload)
        agent = workload["metadata"]["name"] == "flyball-agent"

        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"]
        assert {"type": "RuntimeDefault"} == spec["securityContext"]["seccompProfile"]
        assert [volume["name"] for volume in spec["volumes"] if "hostPath" in volume] == (["spool"] if agent else [])
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            own = container["securityContext"]
            hands_over = container["name"] == "own-spool"

            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert {"drop": ["ALL"], **({"add": ["CHOWN"]} if hands_over else {})} == own["capabilities"]
            assert "privileged" not in own
            assert hands_over or own.get("runAsUser", spec["securityContext"]["runAsUser"]) != 0
            assert {"requests", "limits"} == set(container["resources"])


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_asks_for_rights_at_the_api(kind: str) -> None:
    """Nothing of Flyball talks to the Kubernetes API, so no role is granted and no token is mounted."""
    documents = rendered(kind)

    assert not {document["kind"] for document in documents} & {
        "Role",
        "ClusterRole",
        "RoleBinding",
        "ClusterRoleBinding",
    }
    for account in (document for document in documents if document["kind"] == "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize("kind", KINDS)
def test_the_agent_comes_to_gpu_nodes_and_sees_all_gpus(kind: str) -> None:
    """The agent runs on NVIDIA nodes, bears their taint, and gets NVML without claiming a GPU."""
    spec = pod(component(rendered(kind), "agent"))
    (container,) = spec["containers"]
    env = {one["name"]: one.get("value") for one in container["env"]}

    assert {"nvidia.com/gpu.present": "true"} == spec["nodeSelector"]
    assert [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}] == spec["tolerations"]
    assert "nvidia" == spec["runtimeClassName"]
    assert ("all", "utility") == (env["NVIDIA_VISIBLE_DEVICES"], env["NVIDIA_DRIVER_CAPABILITIES"])
    assert "nvidia.com/gpu" not in container["resources"]["limits"]


@pytest.mark.parametrize("kind", KINDS)
def test_kubectl_renders_the_same(kind: str) -> None:
    """What is checked here is what `kubectl kustomize` renders, but for the hashes in names and orders of keys."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl, which Debian does not package: our own rendering was not compared with it")
    done = subprocess.run([kubectl, "kustomize", str(KUBERNETES / kind)], capture_output=True, text=True, check=True)
    theirs = yaml.safe_load_all(re.sub(r"(flyball-(?:agents|controller))-[0-9a-z]{10}\b", r"\1", done.stdout))

    def in_order(documents: list[Document]) -> list[Document]:
        return sorted(documents, key=lambda one: (one["kind"], one["metadata"]["name"]))

    assert in_order(rendered(kind)) == in_order(list(theirs))
