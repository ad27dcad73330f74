"""cluster.yaml, docs/rayjob.yaml and constraints.txt, as far as they can be checked without a cloud."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config

from raydream.cli import parse
from raydream.config import DistillConfig
from raydream.extras import EXTRAS
from raydream.runtime import SETTINGS
from raydream.tracking.sinks import TRACKERS
from tests.calls import ROOT

CLUSTER = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
RAYJOB = (ROOT / "docs" / "rayjob.yaml").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SLURM = ROOT / "docs" / "slurm.sh"


def checked(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as `ray up` completes it, held to Ray's own schema."""
    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


def shape(node_types: dict[str, Any], head: str) -> dict[str, Any]:
    """Custom resources and numbers of machines by node type; the head has no CPU to offer."""
    assert node_types[head]["resources"]["CPU"] == 0 and node_types[head]["max_workers"] == 0
    own = {"CPU", "GPU", "memory"}
    return {
        name: ({key: value for key, value in kind["resources"].items() if key not in own}, kind["max_workers"])
        for name, kind in node_types.items()
        if name != head and kind["min_workers"] == 0
    }


def test_ray_accepts_cluster_yaml() -> None:
    cluster = checked(yaml.safe_load(CLUSTER))
    types = cluster["available_node_types"]
    assert cluster["max_workers"] == sum(kind["max_workers"] for kind in types.values())
    assert {name for name, kind in types.items() if "InstanceMarketOptions" in kind["node_config"]} == {"generator"}


@pytest.mark.parametrize(
    "right, wrong",
    [
        ("idle_timeout_minutes: ", "idle_timeout_minute: "),
        ("idle_timeout_minutes: ", "idle_timeout_minutes: about "),
        ("head_node_type: ", "head_node_type: the_"),
        ("{student: 1}", "{student: 0.5}"),
        ("max_workers: 16", "max_worker: 16"),
    ],
)
def test_ray_refuses_what_is_misspelt(right: str, wrong: str) -> None:
    assert CLUSTER.count(right) == 1
    config = yaml.safe_load(CLUSTER.replace(right, wrong))
    with pytest.raises((ValueError, ValidationError)):
        checked(config)


def test_ray_accepts_the_variant_for_machines_of_ones_own() -> None:
    config = yaml.safe_load(CLUSTER)
    (example,) = re.findall(r"provider: (\{type: local, .*?\})", CLUSTER)
    dropped = re.findall(r"and no (\w+, \w+ and \w+)\. Ray", CLUSTER)[0]
    for key in re.findall(r"\w+_\w+", dropped):
        del config[key]
    local = checked({**config, "provider": yaml.safe_load(example)})
    assert local["max_workers"] == len(local["provider"]["worker_ips"])


def test_kubernetes_gets_the_same_shape() -> None:
    """By Ray's own reading of such a manifest, which its autoscaler goes by."""
    cluster, job = yaml.safe_load(CLUSTER), yaml.safe_load(RAYJOB)
    manifest = {"metadata": {"name": "raydream", "namespace": "default"}, "spec": job["spec"]["rayClusterSpec"]}
    derived = _derive_autoscaling_config_from_ray_cr(manifest)
    here = shape(checked(cluster)["available_node_types"], cluster["head_node_type"])
    assert shape(derived["available_node_types"], derived["head_node_type"]) == here
    assert here.keys() == {"student", "generator"}
    assert derived["idle_timeout_minutes"] == cluster["idle_timeout_minutes"]


def test_what_is_said_of_node_resources_is_what_node_types_offer() -> None:
    types = yaml.safe_load(CLUSTER)["available_node_types"]
    offered = {
        role: set(types[node]["resources"]) for role, node in [("student", "student"), ("generators", "generator")]
    }
    for name in ("cluster.yaml", "docs/rayjob.yaml", "docs/operations.md"):
        said = re.findall(r"--(\w+)\.node_resource (\w+)", (ROOT / name).read_text(encoding="utf-8"))
        assert all(resource in offered[role] for role, resource in said), name
        assert name == "docs/operations.md" or {role for role, _ in said} == offered.keys()


@pytest.mark.parametrize("name", ["cluster.yaml", "docs/rayjob.yaml", "Dockerfile", "docs/operations.md"])
def test_files_in_commands_are_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    named = re.findall(r"(?:\bray (?:up|down|dashboard|exec|submit)|--filename|--runtime-env) (\S+)", text)
    named += copied_into_the_image(text)
    named += re.findall(r"(?:\bpython |/home/ray/raydream/)(jobs/\S+\.py|configs/\S+\.yaml)", text)
    assert named
    for file in named:
        assert (ROOT / file.rstrip("`")).exists(), file


def test_the_package_can_be_installed_from_what_is_copied_to_each_machine() -> None:
    config, project = yaml.safe_load(CLUSTER), tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    copied = {mount.removeprefix("~/raydream/"): source for mount, source in config["file_mounts"].items()}
    assert copied.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    assert all(target == source and (ROOT / source).exists() for target, source in copied.items())
    needed = needed_to_install(project)
    assert copied.keys() == needed
    assert copied_into_the_image(DOCKERFILE) == sorted(needed)
    sent = set(re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE))
    assert sent == needed
    for text in (CLUSTER, DOCKERFILE):
        assert re.search(r"pip install .*--constraint \S*constraints.txt \S*'\S*\[all\]'", text)


def copied_into_the_image(text: str) -> list[str]:
    """What lines of a Dockerfile take from the repository, sorted."""
    lines = re.findall(r"^COPY --chown=ray (.*) \S+$", text, re.MULTILINE)
    return sorted(file for line in lines for file in line.split())


def needed_to_install(project: dict[str, Any]) -> set[str]:
    """The files and folders of the repository from which pip builds the wheel."""
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    (package,) = wheel["packages"]
    files = {"pyproject.toml", "constraints.txt", project["project"]["readme"], *project["project"]["license-files"]}
    return files | {package.split("/")[0], *wheel["force-include"]}


def test_the_script_for_slurm_runs_a_command_that_raydream_takes(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", SLURM], check=True)
    text = SLURM.read_text(encoding="utf-8")
    (command,) = re.findall(r"^command=\((.*?)\)", text, re.MULTILINE | re.DOTALL)
    program, name, *options = shlex.split(command)
    at = options.index("--run-dir")
    options[at + 1] = str(tmp_path / "run")
    config = parse(DistillConfig, name, options).config
    assert program == "raydream"
    offered = re.findall(r"""--resources='\{"(\w+)": 1\}'""", text)
    assert offered == [config.student.node_resource, config.generators.node_resource]


def test_no_machine_listens_or_is_entered_without_the_token() -> None:
    config = yaml.safe_load(CLUSTER)
    (head,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in head
    assert any(
        "RAY_AUTH_MODE=token" in command and "/etc/profile.d/" in command for command in config["setup_commands"]
    )
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]
    assert yaml.safe_load(RAYJOB)["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("name", ["cluster.yaml", "Dockerfile", "docs/slurm.sh", "docs/operations.md"])
def test_ray_shows_no_gpu_to_a_process_that_reserves_none_as_a_private_ray_does(name: str) -> None:
    variable = "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"
    assert re.search(rf"(export|ENV) .*\b{variable}={SETTINGS[variable]}\b", (ROOT / name).read_text(encoding="utf-8"))


def test_constraints_meet_what_the_project_asks_for() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)  # plain builds, no "+cpu"
    pinned = dict(line.split("==") for line in lines)
    assert len(pinned) == len(lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [text for name in EXTRAS.keys() - TRACKERS.keys() for text in project["optional-dependencies"][name]]
    for text in project["dependencies"] + extras:
        requirement = Requirement(text)
        version = Version(pinned[canonicalize_name(requirement.name)])
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{requirement}, but constraints.txt: {version}"
        )


def test_kubernetes_gets_the_ray_of_the_constraints() -> None:
    (pinned,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert yaml.safe_load(RAYJOB)["spec"]["rayClusterSpec"]["rayVersion"] == pinned
    assert re.findall(r"FROM rayproject/ray:([\d.]+)-", DOCKERFILE) == [pinned]
