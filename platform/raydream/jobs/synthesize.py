"""The job that makes images and nothing else: all generators, one Parquet data set, and a card that describes it."""

import heapq
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.util.queue import Queue
from rich.console import Console

from raydream.applications.reuse import note_reused
from raydream.cli import Command
from raydream.config import SynthesizeConfig
from raydream.data.image_set import export_folder, open_shards
from raydream.data.sources import Images, Shards
from raydream.jobs.checks.networks import check_teacher
from raydream.jobs.teacher import keep_teacher, with_kept_teacher
from raydream.reporting.cost import cost_rows, hours
from raydream.reporting.data_card import write_card
from raydream.reporting.figures import save_image_grid
from raydream.reporting.progress import Counter, printer, result_table
from raydream.runs import run_folder
from raydream.runs.journal import Journal
from raydream.runs.recorder import Recorder
from raydream.runs.recording import recording
from raydream.runs.run_folder import RunFolder
from raydream.runtime.generator import GeneratorPlan
from raydream.runtime.gpus import on_machine
from raydream.runtime.mending import set_damaged_aside, with_whole_shards
from raydream.runtime.messages import drain
from raydream.runtime.metrics import RunMetrics
from raydream.runtime.placement import check_cluster, check_device, check_machine
from raydream.runtime.pool import GeneratorPool
from raydream.runtime.session import (
    beside_the_driver,
    device_of_driver,
    is_local,
    machine_nodes,
    machine_text,
    ray_session,
)
from raydream.store.atomic import write_json
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore
from raydream.synthesis.figures import figures_of
from raydream.synthesis.stages import updates_of
from raydream.synthesis.tasks import Task, tasks_of
from raydream.teachers.teacher import Teacher, to_arrays

POLL_S = 0.2


def synthesize(command: Command[SynthesizeConfig]) -> dict[str, Any]:
    """Make a data set, or go on with it; returns its summary, which is also in the run folder.

    Raises:
        InputError: before Ray starts and before anything is written.
        RaydreamError: a generator failed for good; what is committed is kept.
    """
    began_at, config, console = time.time(), command.config, Console()
    check_device(config)
    if is_local():
        nodes = machine_nodes([config.generators])
        check_machine(config, nodes)
        config = on_machine(config, config, nodes, printer(console))
    kept = with_kept_teacher(config.teacher, command.resumed)
    loaded, tasks = check_teacher(replace(config, teacher=kept)), tasks_of(config)
    folder = command.folder()
    with run_folder.held(folder):
        printer(console)(f"run {folder.run} in {folder.shown()}")
        recipe = (config.teacher, config.training, config.data)
        device = device_of_driver(config.device, [config.generators.gpus])
        teacher = keep_teacher(loaded, recipe, folder, printer(console), device)
        summary, store = run_folder.read_summary(folder), ShardStore(folder.images)
        with recording(folder, began_at, printer(console)) as (recorder, journal):
            set_damaged_aside(store, journal.note)
            if summary is None or not set(tasks) <= set(store.committed()):
                with recorder.stage("images"):
                    session = partial(make_all, config, tasks, teacher, folder, console, journal)
                    with_whole_shards(store, session, journal.note)
                summary = _summarise(config, folder, recorder)
                summary["reused"] = note_reused(store, folder.run, config.reuse, journal.note)
                write_json(folder.summary, summary)
        write_card(folder, config, summary)
        save_image_grid(folder)
        if config.png and not (folder.path / "png").exists():
            export_folder(folder.place, folder.path / "png")
    _show(summary, folder, console)
    return summary


def images_made(
    config: SynthesizeConfig, teacher: Teacher, folder: RunFolder, console: Console, journal: Journal
) -> Images:
    """The images of a run's own, of which those that are missing are made; raises RaydreamError as `make_all`."""
    tasks, store = tasks_of(config), ShardStore(folder.images)
    session = partial(make_all, config, tasks, teacher, folder, console, journal)
    with_whole_shards(store, session, journal.note)
    save_image_grid(folder)
    return Images.of(Shards.of(store, sorted(tasks)))


def make_all(
    config: SynthesizeConfig,
    tasks: dict[BatchId, Task],
    teacher: Teacher,
    folder: RunFolder,
    console: Console,
    journal: Journal,
) -> None:
    """Make what a run's folder lacks of these batches, in one Ray session; does nothing where it lacks none.

    Raises:
        RaydreamError: a generator failed for good.
    """
    store = ShardStore(folder.images)
    sizes = {batch: len(task.order.targets) for batch, task in tasks.items()}
    committed, images = set(store.committed()), sum(sizes.values())
    pending = [batch for batch in tasks if batch not in committed]
    made = images - sum(sizes[batch] for batch in pending)
    if not pending:
        return
    plan = _plan(config, folder, len(tasks))
    with (
        ray_session(partial(check_cluster, config), [config.generators], folder.run),
        Counter("images", made, images, console) as counter,
    ):
        here = {"scheduling_strategy": beside_the_driver()}
        reports = Queue(actor_options={"num_cpus": 0, "name": "reports", **here})
        pool = GeneratorPool(plan, ray.put(to_arrays(teacher.network)), reports, journal.note, config)
        shares: dict[BatchId, float] = {}
        metrics = RunMetrics(folder.run)
        while pending or pool.in_flight:
            # What a batch learns on from is committed unless it is in the making, as batches are begun in order.
            while pending and pool.has_idle() and tasks[pending[0]].order.after not in pool.in_flight:
                task = tasks[heapq.heappop(pending)]
                pool.start(task.order, None, task.source)
            finished, lost = pool.collect(POLL_S, more=bool(pending))
            for batch in lost:
                heapq.heappush(pending, batch)
            for report in drain(reports):
                pool.heard(report.batch)
                shares[report.batch] = report.share
            for done in finished:
                made += sizes[done.batch]
                share, seconds = done.receipt.provenance.target_share, done.receipt.seconds
                counter.say(f"batch {done.batch}: {sizes[done.batch]} images, {share:.1%} on target, {seconds:.0f} s")
            under_way = sum(shares.get(batch, 0.0) * sizes[batch] for batch in pool.in_flight)
            counter.update(made + under_way)
            metrics.set("images", made)
            metrics.set("batches_in_flight", len(pool.in_flight))
            metrics.set("generators", pool.at_hand)
            metrics.set("restarts", pool.lost, role="generator")
            metrics.tell()


def _plan(config: SynthesizeConfig, folder: RunFolder, batches: int) -> GeneratorPlan:
    return GeneratorPlan(
        folder.run,
        config.device,
        config.teacher,
        config.synthesis,
        None,
        config.generators,
        shards=folder.images,
        sources=open_shards(config.start_from).folder if config.start_from else folder.images,
        reuse=config.reuse and str(Path(config.reuse).absolute()),
        batches=batches,
    )


def _summarise(config: SynthesizeConfig, folder: RunFolder, recorder: Recorder) -> dict[str, Any]:
    """The final figures; shares are in [0, 1], counted on quantised pixels."""
    store = ShardStore(folder.images)
    made = figures_of(store, store.committed(), config.teacher.classes)
    return {
        "method": config.synthesis.method,
        "seed": config.seed,
        "images": made.images,
        "batches": made.batches,
        "updates": updates_of(config.synthesis),
        "images_per_class": made.images_per_class.tolist(),
        "target_share": made.target_share,
        "losses": made.losses,
        "restarts": made.restarts,
        "wall_s": recorder.time_s(time.time()),
        "seconds_by_stage": recorder.seconds_by_stage(),
        **hours((recorder.seconds_by_stage()["images"], config.generators.number, config.generators)),
        "teacher_fingerprint": made.teacher,
        **machine_text(),
    }


def _show(summary: dict[str, Any], folder: RunFolder, console: Console) -> None:
    losses = ", ".join(f"{name} {value:.3g}" for name, value in summary["losses"].items())
    rows = {
        "images": f"{summary['images']} in {summary['batches']} batches, by {summary['method']}",
        "on target": f"{summary['target_share']:.1%} by the teacher, of the images as they are stored",
        "losses": losses,
        "made by earlier runs": f"{sum(summary.get('reused', {}).values())} batches",
        **cost_rows(summary),
        "seconds": f"{summary['wall_s']:.0f}",
        "data set": folder.shown("images"),
        "data card": folder.shown("README.md"),
        "pictures": folder.shown("images.png"),
        **({"PNG files": folder.shown("png")} if (folder.path / "png").exists() else {}),
    }
    console.print(result_table(rows))
