"""The main job: invert a teacher with parallel generators, and distil a student from the images meanwhile."""

import contextlib
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from raydream.applications.reuse import note_reused
from raydream.cli import Command
from raydream.compute import compute_deterministically
from raydream.config import DistillConfig
from raydream.config.conversion import as_dict
from raydream.jobs.checks.distill import Checked, check_run
from raydream.jobs.driver import Driver
from raydream.jobs.teacher import keep_teacher, with_kept_teacher
from raydream.networks import build_student
from raydream.reporting.cost import cost_rows, hours
from raydream.reporting.figures import save_image_grid
from raydream.reporting.progress import Display, State, accuracy_rows, printer, result_table
from raydream.reporting.report import write_report
from raydream.runs import run_folder
from raydream.runs.journal import Journal
from raydream.runs.recorder import Recorder, overlap_share
from raydream.runs.recording import recording
from raydream.runs.run_folder import RunFolder
from raydream.runtime.evaluator import final_accuracies
from raydream.runtime.gpus import on_machine
from raydream.runtime.mending import set_damaged_aside, with_whole_shards
from raydream.runtime.placement import check_cluster, check_device, check_machine
from raydream.runtime.session import device_of_driver, is_local, machine_nodes, machine_text, ray_session
from raydream.store.atomic import write_json
from raydream.store.records import Snapshot
from raydream.store.shards import ShardStore
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import Teacher, load_arrays


def distill(command: Command[DistillConfig]) -> dict[str, Any]:
    """Run or resume one experiment; returns its summary, which is also in the run folder.

    Raises:
        InputError: before Ray starts and before anything is written.
        RaydreamError: the run failed; it can be resumed.
    """
    began_at, config, console = time.time(), command.config, Console()
    check_device(config)
    if is_local():
        nodes = machine_nodes([config.student, config.generators])
        check_machine(config, nodes)
        config = on_machine(config, config, nodes, printer(console))
    teacher = with_kept_teacher(config.teacher, command.resumed)
    checked = check_run(replace(config, teacher=teacher))
    folder = command.folder()
    with run_folder.held(folder):
        summary = run_folder.read_summary(folder)
        if summary is None or _lacks_images(folder, checked, console):
            summary = _run(config, checked, folder, began_at, console)
        else:
            printer(console)(f"the run in {folder.shown()} is done; its report is written again")
        save_image_grid(folder)
        write_report(folder)
    _show(summary, folder, console)
    return summary


def _lacks_images(folder: RunFolder, checked: Checked, console: Console) -> bool:
    """Whether a run that is done has lost images since, which are to be made again."""
    store = ShardStore(folder.images)
    journal = Journal(folder.journal, printer(console))
    set_damaged_aside(store, journal.note)
    return not set(checked.schedule.batch_ids()) <= set(store.committed())


def _run(
    config: DistillConfig, checked: Checked, folder: RunFolder, began_at: float, console: Console
) -> dict[str, Any]:
    schedule = checked.schedule
    images = schedule.total_batches * schedule.batch_images
    with (
        Display(State(schedule.rounds, schedule.total_steps, images, config.generators.number), console) as display,
        recording(folder, began_at, display.say) as (recorder, journal),
    ):
        display.say(f"run {folder.run} in {folder.shown()}")
        with recorder.stage("teacher"):
            display.update(stage="getting the teacher, which is trained on real data where no checkpoint is named")
            recipe = (config.teacher, config.training, config.data)
            device = device_of_driver(config.device, [config.generators.gpus, config.student.gpus])
            if config.rounds.lockstep:
                compute_deterministically(device)
            teacher = keep_teacher(checked.teacher, recipe, folder, display.say, device)
        session = partial(_session, config, checked, teacher, folder, recorder, display, journal)
        snapshot = with_whole_shards(ShardStore(folder.images), session, journal.note)
        student = build_student(config.student, config.teacher)
        load_arrays(student, snapshot.state)
        save_network(student, folder.student)
        summary = _summarise(config, checked, teacher, recorder, device)
        summary["reused"] = note_reused(ShardStore(folder.images), folder.run, config.reuse, journal.note)
        recorder.hyper_parameters(as_dict(config), summary)
    write_json(folder.summary, summary)
    return summary


def _session(
    config: DistillConfig,
    checked: Checked,
    teacher: Teacher,
    folder: RunFolder,
    recorder: Recorder,
    display: Display,
    journal: Journal,
) -> Snapshot:
    """One Ray session, from what the folder holds to the trained student."""
    with contextlib.ExitStack() as session:
        with recorder.stage("start"):
            display.update(stage="starting Ray")
            check = partial(check_cluster, config)
            session.enter_context(ray_session(check, [config.student, config.generators], folder.run))
        with recorder.stage("rounds"):
            return Driver(config, checked, teacher, folder, recorder, display, journal).run()


def _summarise(
    config: DistillConfig,
    checked: Checked,
    teacher: Teacher,
    recorder: Recorder,
    device: torch.device,
) -> dict[str, Any]:
    """The final figures; accuracies are shares in [0, 1], absent where there are no real data to measure on."""
    schedule = checked.schedule
    return {
        "method": config.synthesis.method,
        "seed": config.seed,
        "data": config.data.name,
        **final_accuracies(teacher, checked.data, recorder, schedule.total_steps, device),
        "rounds": schedule.rounds,
        "generators": config.generators.number,
        "images": schedule.total_batches * schedule.batch_images,
        "distillation_steps": schedule.total_steps,
        "wall_s": recorder.time_s(time.time()),
        "seconds_by_stage": recorder.seconds_by_stage(),
        **hours(
            (recorder.seconds_by_stage()["rounds"], config.generators.number, config.generators),
            (recorder.seconds_by_stage()["rounds"], config.student.workers, config.student),
        ),
        "overlap_share": overlap_share(recorder.table()),
        "lockstep": config.rounds.lockstep,
        "teacher_fingerprint": teacher.fingerprint,
        **machine_text(),
    }


def _show(summary: dict[str, Any], folder: RunFolder, console: Console) -> None:
    rows = accuracy_rows(summary)
    rows["images"] = f"{summary['images']} synthetic, by {summary['method']}"
    rows["rounds"] = f"{summary['rounds']}, {summary['distillation_steps']} distillation steps"
    stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in summary["seconds_by_stage"].items())
    rows["seconds"] = f"{summary['wall_s']:.0f} in all: {stages}"
    rows |= cost_rows(summary)
    rows["run folder"] = folder.shown()
    rows["pictures"] = folder.shown("images.png")
    rows["report"] = folder.shown(folder.report.name)
    console.print(result_table(rows))
    tensorboard = Path(sys.executable).with_name("tensorboard")
    printer(console)(f"{tensorboard} --logdir {folder.shown(folder.tensorboard.name)}")
