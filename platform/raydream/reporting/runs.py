"""What one run takes from another: networks that earlier runs trained, described in their own configurations."""

import json
from typing import Any

from raydream.errors import InputError
from raydream.folders import folder_at
from raydream.reporting.run_folder import NETWORK, STUDENT, TEACHER, read

OF_RUN = "run:"
OF_IMAGES = "images"


def resolve(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with every network that names a run replaced by what that run says of it.

    `teacher.network: run:DIR` becomes the network that the run in DIR trained: its student, or its teacher where it
    trained no student; `teacher.network: images` becomes the teacher of the run whose images are named. A verifier
    `NETWORK=CHECKPOINT` gets the input and the classes of the teacher whose images it is to classify.

    Raises:
        InputError: there is no such run, or it has not trained a network (yet).
    """
    settings = dict(settings)
    if isinstance(settings.get("teacher"), dict):
        if settings["teacher"].get("network") == OF_IMAGES and settings.get("images"):
            settings["teacher"] = _inverted(str(settings["images"]))
        else:
            settings["teacher"] = _network(settings["teacher"], "teacher.network")
    if isinstance(verifiers := settings.get("verifiers"), str):
        verifiers = verifiers.split(",")
    if verifiers:
        settings["verifiers"] = [
            _network(_verifier(verifier, settings["images"]), f"verifiers.{index}")
            for index, verifier in enumerate(verifiers)
        ]
    return settings


def teacher_of(run: str, field: str) -> dict[str, Any]:
    """The teacher's description in a run's configuration; raises InputError."""
    config = read(run, field)[1]
    if not isinstance(config.get("teacher"), dict):
        raise InputError(field, run, "the folder of a run that has a teacher", "name another run")
    teacher: dict[str, Any] = config["teacher"]
    return teacher


def _inverted(images: str) -> dict[str, Any]:
    """The teacher that a run made images of."""
    place = folder_at(images, "images")
    description = teacher_of(images, "images")
    if not place.has(TEACHER):
        raise InputError("images", images, "the folder of a run that has a teacher", "name another run, or a teacher")
    return description | {"checkpoint": f"{place}/{TEACHER}"}


def _network(description: dict[str, Any], field: str) -> dict[str, Any]:
    name = str(description.get("network", ""))
    if not name.startswith(OF_RUN):
        return description
    run = name.removeprefix(OF_RUN)
    teacher, config = teacher_of(run, field), read(run, field)[1]
    place, trained = folder_at(run, field), STUDENT if "student" in config else TEACHER
    if not place.has(trained):
        raise InputError(field, name, "a run that is done", f"there is no {trained} in it (yet)")
    own = json.loads(place.read(NETWORK)) if place.has(NETWORK) else config.get("student", teacher)
    return teacher | {"network": own["network"], "arguments": own["arguments"], "checkpoint": f"{place}/{trained}"}


def _verifier(verifier: Any, images: str) -> dict[str, Any]:
    if not isinstance(verifier, str):
        return dict(verifier)
    network, equals, checkpoint = verifier.partition("=")
    if network.startswith(OF_RUN) and not equals:
        return {"network": verifier}
    if not network or not checkpoint:
        allowed = "NETWORK=CHECKPOINT or run:DIR, with commas between several"
        raise InputError("verifiers", verifier, allowed, "give both its network and its weights")
    return teacher_of(images, "images") | {"network": network, "arguments": {}, "checkpoint": checkpoint}
