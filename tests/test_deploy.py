"""The files in `deploy/`, checked by the linters of their formats and against the program that they start."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from seeknal.cli.server import serve
from seeknal.config import Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "deploy/Dockerfile"
MANIFESTS = ROOT / "deploy/kubernetes/seeknal.yaml"
RELEASES = ["1.30", "1.33", "1.34"]


def manifests():
    return {one["kind"]: one for one in yaml.safe_load_all(MANIFESTS.read_text())}


def test_hadolint_finds_nothing_in_the_dockerfile():
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("release", RELEASES)
def test_the_manifests_are_valid_for_each_release_of_kubernetes(release):
    for one in yaml.safe_load_all(MANIFESTS.read_text()):
        kubernetes_validate.validate(one, release, strict=True)


def test_the_image_installs_extras_and_copies_files_that_exist():
    text = DOCKERFILE.read_text()
    extras = re.search(r'"\.\[(.*)\]"', text).group(1).split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= project["optional-dependencies"].keys()
    copied = [name for line in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE) for name in line.split()[:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(ignored)


def test_what_the_containers_are_told_is_what_the_program_knows():
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    options = {one.removeprefix("--").replace("-", "_") for one in container["args"] if one.startswith("--")}
    assert container["args"][0] == "serve"
    assert options <= inspect.signature(serve).parameters.keys()
    told = [*manifests()["ConfigMap"]["data"], *re.findall(r"(SEEKNAL_\w+)=", DOCKERFILE.read_text())]
    known = {f"SEEKNAL_{one.name.upper()}" for one in dataclasses.fields(Settings)} | {
        "SEEKNAL_HOST",
        "SEEKNAL_PORT",
        "SEEKNAL_WORKERS",
    }
    assert set(told) <= known
    assert container["ports"][0]["containerPort"] == 6789


def test_containers_run_without_rights_on_a_file_system_that_they_cannot_write():
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {one["mountPath"] for one in container["volumeMounts"]} == {"/scratch", "/tmp"}
    assert re.search(r"^USER (?!root|0$)", DOCKERFILE.read_text(), re.MULTILINE)


def test_a_pod_has_the_time_to_finish_what_it_answers():
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    told = pod["containers"][0]["args"]
    drain, grace = int(told[told.index("--drain") + 1]), inspect.signature(serve).parameters["grace"].default
    a_minute_for_the_storage = 60
    assert drain > 0
    assert pod["terminationGracePeriodSeconds"] > drain + grace + a_minute_for_the_storage
