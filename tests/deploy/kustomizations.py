"""Renders our kustomizations as `kubectl kustomize` does, for tests on machines without kubectl.

Knows the few features that deploy/kubernetes uses, and refuses every other key: resources, components,
generated ConfigMaps (named without the hash that kubectl appends) and JSON patches that add or replace.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from project_paths import KUBERNETES

Document = dict[str, Any]
_KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "patches"}
_CLUSTER_WIDE = {"Namespace"}
KINDS = ("embedded", "kafka")
"""The kustomizations that one applies."""


def render(folder: Path) -> list[Document]:
    """All documents of the kustomization in `folder`. Raises `ValueError` for a feature that is not known here."""
    told: Document = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(told) - _KNOWN
    if unknown:
        raise ValueError(f"{folder.name}: {sorted(unknown)} cannot be rendered here")
    documents: list[Document] = []
    for name in (*told.get("resources", ()), *told.get("components", ())):
        path = folder / name
        documents += render(path) if path.is_dir() else load(path)
    documents += [_config_map(folder, one) for one in told.get("configMapGenerator", ())]
    for patch in told.get("patches", ()):
        _patch(documents, patch)
    if "namespace" in told:
        for document in documents:
            if document["kind"] not in _CLUSTER_WIDE:
                document["metadata"]["namespace"] = told["namespace"]
    return documents


def load(path: Path) -> list[Document]:
    """The documents of one file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def rendered(kind: str) -> list[Document]:
    """What `kubectl apply -k deploy/kubernetes/KIND` would apply."""
    return render(KUBERNETES / kind)


def found(documents: list[Document], kind: str, name: str) -> Document:
    """The one document of that kind and name."""
    (one,) = (document for document in documents if (document["kind"], document["metadata"]["name"]) == (kind, name))
    return one


def workloads(documents: list[Document]) -> list[Document]:
    """The documents that start pods."""
    return [document for document in documents if document["kind"] in {"StatefulSet", "DaemonSet", "Deployment", "Job"}]


def _config_map(folder: Path, told: Document) -> Document:
    files = {Path(name).name: (folder / name).read_text() for name in told["files"]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": told["name"]}, "data": files}


def _patch(documents: list[Document], told: Document) -> None:
    target = told["target"]
    chosen = [
        document
        for document in documents
        if document["kind"] == target["kind"] and target.get("name") in {None, document["metadata"]["name"]}
    ]
    if not chosen:
        raise ValueError(f"a patch is for {target}, which is not there")
    for document in chosen:
        for operation in yaml.safe_load(told["patch"]):
            _apply(document, operation)


def _apply(document: Document, operation: Document) -> None:
    *way, last = operation["path"].strip("/").split("/")
    place: Any = document
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    value = deepcopy(operation["value"])
    match operation["op"], place:
        case "add", list() if last == "-":
            place.append(value)
        case "add", dict():
            place[last] = value
        case "replace", dict() if last in place:
            place[last] = value
        case _:
            raise ValueError(f"{operation['op']} at {operation['path']} cannot be rendered here")
