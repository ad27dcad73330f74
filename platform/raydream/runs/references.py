"""References in settings: networks that earlier runs trained, and the file of a search's space."""

import json
from typing import Any

from raydream.config import DataConfig
from raydream.errors import DocumentError, InputError, first_line
from raydream.runs.run_folder import NETWORK, STUDENT, TEACHER, is_begun, read
from raydream.shipped import SPACE, file_named
from raydream.store.documents import parse_yaml
from raydream.store.folders import folder_at

OF_RUN = "run:"
OF_IMAGES = "images"


def resolve(settings: dict[str, Any]) -> dict[str, Any]:
    """Replace references in settings by what they name, so that a run folder's configuration stands alone.

    `teacher.network: run:DIR` becomes the network that the run in DIR trained: its student, or its teacher where it
    trained no student; `teacher.network: images` becomes the teacher of the run whose images are named, and
    `data.name: images` the data that run was measured on, or the digits if the images are no run's. A verifier
    `NETWORK=CHECKPOINT` gets the input and the classes of the teacher whose images it classifies. Runs separated by
    commas become a list. `space: PATH` becomes the content of that file.

    Raises:
        InputError: there is no such run, or it has not trained a network (yet); a file that cannot be read.
    """
    settings = dict(settings)
    if isinstance(space := settings.get("space"), str) and space:
        settings["space"] = _space(space)
    if isinstance(settings.get("teacher"), dict):
        if settings["teacher"].get("network") == OF_IMAGES and settings.get("images"):
            settings["teacher"] = _inverted(str(settings["images"]))
        else:
            settings["teacher"] = _network(settings["teacher"], "teacher.network")
    if isinstance(settings.get("data"), dict) and settings["data"].get("name") == OF_IMAGES:
        settings["data"] = _measured_on(settings.get("images"), settings["data"])
    if isinstance(settings.get("compare"), str):
        settings["compare"] = [run for run in settings["compare"].split(",") if run]
    if isinstance(verifiers := settings.get("verifiers"), str):
        verifiers = verifiers.split(",")
    if verifiers:
        settings["verifiers"] = [
            _network(_verifier(verifier, settings), f"verifiers.{index}") for index, verifier in enumerate(verifiers)
        ]
    return settings


def teacher_of(run: str, field: str) -> dict[str, Any]:
    """Return the teacher's description in a run's configuration; raises InputError."""
    config = read(run, field)[1]
    if not isinstance(config.get("teacher"), dict):
        raise InputError(field, run, "the folder of a run that has a teacher", "name another run")
    teacher: dict[str, Any] = config["teacher"]
    return teacher


def _inverted(images: str) -> dict[str, Any]:
    """Return the teacher that a run inverted."""
    place = folder_at(images, "images")
    if not is_begun(images):
        allowed = "the folder of a run where no teacher is named"
        raise InputError(
            "images", images, allowed, "name another, or the teacher (teacher.network, teacher.checkpoint)"
        )
    description = teacher_of(images, "images")
    if not place.has(TEACHER):
        raise InputError("images", images, "the folder of a run that has a teacher", "name another run, or a teacher")
    return description | {"checkpoint": f"{place}/{TEACHER}"}


def _measured_on(images: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Return the data of the run that made the images, with the user's changes; the default if no run did."""
    if not isinstance(images, str):
        allowed = "digits, files, torchvision:NAME or none"
        raise InputError("data.name", OF_IMAGES, allowed, "this job is given no images of another run")
    usual = DataConfig()
    said = {name: value for name, value in given.items() if value and value != getattr(usual, name)}
    data = read(images, "images")[1].get("data") if images and is_begun(images) else None
    theirs = data if isinstance(data, dict) else {"name": usual.name}
    return theirs | said | {"name": theirs["name"]}


def _network(description: dict[str, Any], field: str) -> dict[str, Any]:
    name = str(description.get("network", ""))
    if not name.startswith(OF_RUN):
        return description
    run = name.removeprefix(OF_RUN)
    teacher, config = teacher_of(run, field), read(run, field)[1]
    place, trained = folder_at(run, field), STUDENT if "student" in config else TEACHER
    if not place.has(trained):
        raise InputError(field, name, "a run that is done", f"there is no {trained} in it (yet)")
    own = config.get("student", teacher)
    if place.has(NETWORK):
        try:
            own = json.loads(place.read(NETWORK))
        except (OSError, ValueError, RecursionError) as error:
            remedy = f"reading its {NETWORK} failed: {first_line(error)}"
            raise InputError(field, name, "a run that trained a network", remedy) from error
    if not isinstance(own, dict):
        source = NETWORK if place.has(NETWORK) else "configuration"
        raise InputError(field, name, "a run that trained a network", f"its {source} describes none")
    described = {key: own[key] for key in ("network", "arguments", "classes") if key in own}
    own_files = {"statistics": own.get("statistics", ""), "checkpoint": f"{place}/{trained}"}
    return teacher | described | own_files


def _space(path: str) -> dict[str, Any]:
    allowed = "a YAML file with the key `search`"
    try:
        content = parse_yaml(file_named(path, "space", SPACE).read_bytes(), path)
    except (OSError, DocumentError) as error:
        raise InputError("space", path, allowed, f"reading it failed: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError("space", path, allowed, "it holds no settings")
    return content


def _verifier(verifier: Any, settings: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(verifier, str):
        return dict(verifier)
    network, equals, checkpoint = verifier.partition("=")
    if network.startswith(OF_RUN) and not equals:
        return {"network": verifier}
    if not network or not checkpoint:
        allowed = "NETWORK=CHECKPOINT or run:DIR, with commas between several"
        raise InputError("verifiers", verifier, allowed, "give both its network and its weights")
    judged = teacher_of(settings["images"], "images") if "images" in settings else settings["teacher"]
    return judged | {"network": network, "arguments": {}, "statistics": "", "checkpoint": checkpoint}
