"""The main job: invert a teacher with parallel generators, and distill a student from the images meanwhile."""

import contextlib
from dataclasses import replace
from functools import partial

import torch

from raydream.cli import Command
from raydream.compute import compute_deterministically
from raydream.config import DistillConfig
from raydream.jobs.checks.distill import Checked, check_run
from raydream.jobs.driver import Driver
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.teacher import with_kept_teacher
from raydream.networks import build_student
from raydream.reporting.picture_grid import save_image_grid
from raydream.reporting.progress import Display, DisplayState, accuracy_rows, device_text, waiting
from raydream.reporting.report import write_report
from raydream.runs.recorder import overlap_share
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import DistillSummary
from raydream.runtime.evaluator import final_accuracies
from raydream.runtime.gpus import on_machine
from raydream.runtime.placement import check_cluster, check_device, check_machine
from raydream.runtime.repair import is_whole, with_whole_shards
from raydream.runtime.session import device_of_driver, is_local, machine_nodes, ray_session
from raydream.schedule import Schedule
from raydream.store.records import Snapshot
from raydream.store.shards import ShardStore
from raydream.teachers.checkpoints import save_network
from raydream.teachers.teacher import Teacher, load_arrays


def distill(command: Command[DistillConfig]) -> DistillSummary:
    """Invert a teacher and distill a student, or resume; see `carry_out`."""
    return carry_out(JOB, command)


def _check(config: DistillConfig, resumed: RunFolder | None, say: Say) -> tuple[DistillConfig, Checked]:
    check_device(config)
    if is_local():
        nodes = machine_nodes([config.student, config.generators])
        check_machine(config, nodes)
        config = on_machine(config, config, nodes, say)
    return config, check_run(replace(config, teacher=with_kept_teacher(config.teacher, resumed)))


def _is_whole(config: DistillConfig, folder: RunFolder, summary: DistillSummary, note: Say) -> bool:
    return is_whole(ShardStore(folder.images), Schedule.of(config).total_batches, note)


def _make(run: JobRun[DistillConfig], checked: Checked) -> DistillSummary:
    config, folder, schedule = run.config, run.folder, checked.schedule
    images = schedule.total_batches * schedule.batch_images
    state = DisplayState(schedule.rounds, schedule.total_steps, images, config.generators.number)
    state.devices = _devices(config)
    with Display(state, run.console) as display:
        device = device_to_compute_on(config)
        session = partial(_session, run, checked, device, display)
        teacher, snapshot = with_whole_shards(ShardStore(folder.images), session, run.journal.note)
    student = build_student(config.student, config.teacher)
    load_arrays(student, snapshot.state)
    save_network(student, folder.student)
    with waiting("the teacher to be measured", run.console):
        accuracies = final_accuracies(teacher, checked.data, run.recorder, schedule.total_steps, device)
    return DistillSummary(
        method=config.synthesis.method,
        seed=config.seed,
        data=config.data.name,
        **accuracies,
        rounds=schedule.rounds,
        generators=config.generators.number,
        images=images,
        distillation_steps=schedule.total_steps,
        **run.hours(
            ("rounds", config.generators.number, config.generators), ("rounds", config.student.workers, config.student)
        ),
        overlap_share=overlap_share(run.recorder.table()),
        lockstep=config.rounds.lockstep,
        teacher_fingerprint=teacher.fingerprint,
        reused=run.reused(),
    )


def device_to_compute_on(config: DistillConfig) -> torch.device:
    """Set up and return the device of the driver, which trains a teacher and measures the student."""
    device = device_of_driver(config.device, [config.generators.gpus, config.student.gpus])
    if config.rounds.lockstep:
        compute_deterministically(device)
    return device


def _devices(config: DistillConfig) -> str:
    return f"{device_text('generators', config.generators.gpus)}, {device_text('student', config.student.gpus)}"


def _session(
    run: JobRun[DistillConfig], checked: Checked, device: torch.device, display: Display
) -> tuple[Teacher, Snapshot]:
    """Run one Ray session, from what the folder holds to the trained student; returns teacher and student.

    A private Ray's processes start while the teacher is trained or loaded. Those of a cluster do not: they would hold
    nodes idle that other runs can use.
    """
    config, folder = run.config, run.folder
    with contextlib.ExitStack() as session:
        with run.stage("start", "Ray to start"):
            display.update(stage="starting Ray")
            check = partial(check_cluster, config)
            session.enter_context(ray_session(check, [config.student, config.generators], folder.run))
            driver = Driver(run, checked, display)
            if is_local():
                driver.start_generators()
        display.update(stage="getting the teacher, which is trained on real data where no checkpoint is named")
        teacher = run.teacher(checked.teacher, device)
        with run.stage("rounds"):
            return teacher, driver.run(teacher)


def _report(folder: RunFolder, config: DistillConfig, summary: DistillSummary) -> None:
    save_image_grid(folder)
    write_report(folder, summary)


def _rows(summary: DistillSummary) -> dict[str, str]:
    return {
        **accuracy_rows(summary),
        "images": f"{summary.images} synthetic, by {summary.method}",
        "rounds": f"{summary.rounds}, {summary.distillation_steps} distillation steps",
    }


JOB = Job(
    name="distill",
    check=_check,
    make=_make,
    rows=_rows,
    report=_report,
    files={"pictures": "images.png", "report": "report.html"},
    is_whole=_is_whole,
)
