"""The job that only makes images: parallel generators, one Parquet data set, and a card that describes it."""

import contextlib
import heapq
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from raydream.cli import Command
from raydream.config import SynthesizeConfig
from raydream.data.image_set import export_folder, open_shards
from raydream.jobs.checks.networks import check_teacher
from raydream.jobs.job import Job, JobRun, Say, carry_out
from raydream.jobs.run_log import show_batch
from raydream.jobs.teacher import with_kept_teacher
from raydream.reporting.data_card import write_card
from raydream.reporting.picture_grid import save_image_grid
from raydream.reporting.progress import Counter, device_text, waiting
from raydream.reporting.waits import LongWaits
from raydream.runs.run_folder import RunFolder
from raydream.runs.summaries import SynthesizeSummary
from raydream.runtime.generator import GeneratorPlan
from raydream.runtime.gpus import on_machine
from raydream.runtime.images import whole_batch
from raydream.runtime.messages import ReportQueue
from raydream.runtime.metrics import RunMetrics
from raydream.runtime.placement import check_cluster, check_device, check_machine
from raydream.runtime.pool import GeneratorPool
from raydream.runtime.repair import is_whole, with_whole_shards
from raydream.runtime.session import beside_the_driver, device_of_driver, is_local, machine_nodes, ray_session
from raydream.store.records import BatchId
from raydream.store.shards import ShardStore
from raydream.synthesis.figures import figures_of
from raydream.synthesis.stages import updates_of
from raydream.synthesis.tasks import Task, tasks_of
from raydream.teachers.teacher import Teacher, to_arrays

POLL_S = 0.2
SAVE_S = 60.0
"""seconds, at least, between two uploads of the driver's files to a store"""


def synthesize(command: Command[SynthesizeConfig]) -> SynthesizeSummary:
    """Make a set of images, or resume; see `carry_out`."""
    return carry_out(JOB, command)


@dataclass(frozen=True)
class CheckedImages:
    """The findings of the checks.

    Attributes:
        teacher: loaded from its checkpoint; None if it must be trained.
        tasks: all batches in order.
    """

    teacher: Teacher | None
    tasks: dict[BatchId, Task]


def _check(config: SynthesizeConfig, resumed: RunFolder | None, say: Say) -> tuple[SynthesizeConfig, CheckedImages]:
    check_device(config)
    if is_local():
        nodes = machine_nodes([config.generators])
        check_machine(config, nodes)
        config = on_machine(config, config, nodes, say)
    loaded = check_teacher(replace(config, teacher=with_kept_teacher(config.teacher, resumed)))
    return config, CheckedImages(loaded, tasks_of(config))


def _is_whole(config: SynthesizeConfig, folder: RunFolder, summary: SynthesizeSummary, note: Say) -> bool:
    return is_whole(ShardStore(folder.images), summary.batches, note)


def _make(run: JobRun[SynthesizeConfig], checked: CheckedImages) -> SynthesizeSummary:
    config = run.config
    teacher = run.teacher(checked.teacher, device_of_driver(config.device, [config.generators.gpus]))
    with run.stage("images"):
        session = partial(make_all, run, config, checked.tasks, teacher)
        with_whole_shards(ShardStore(run.folder.images), session, run.journal.note)
    return _summarize(run)


def make_all(run: JobRun[Any], config: SynthesizeConfig, tasks: dict[BatchId, Task], teacher: Teacher) -> None:
    """Make the batches that are missing in a run's folder, in one Ray session; does nothing if none are.

    Args:
        config: how they are made: the run's settings, or a part of them.

    Raises:
        RaydreamError: a generator failed for good.
    """
    folder, store = run.folder, ShardStore(run.folder.images)
    sizes = {batch: len(task.order.targets) for batch, task in tasks.items()}
    committed, images = set(store.committed()), sum(sizes.values())
    pending = [batch for batch in tasks if batch not in committed]
    made = images - sum(sizes[batch] for batch in pending)
    if not pending:
        return
    plan = _plan(config, folder, len(tasks))
    with contextlib.ExitStack() as session:
        with waiting("Ray to start", run.console):
            session.enter_context(ray_session(partial(check_cluster, config), [config.generators], folder.run))
        where = device_text("generators", config.generators.gpus)
        counter = session.enter_context(Counter("images", made, images, run.console, where=where))
        reports = ReportQueue(name="reports", scheduling_strategy=beside_the_driver())
        arrays = ray.put(to_arrays(teacher.network))
        pool = GeneratorPool(plan, reports, run.journal.note, config)
        shares: dict[BatchId, float] = {}
        metrics, waits, save_at = RunMetrics(folder.run), LongWaits(counter.say), 0.0
        while pending or pool.in_flight:
            # The batch whose state a batch starts from is committed or in progress, as batches are begun in order.
            while pending and pool.has_idle() and tasks[pending[0]].order.after not in pool.in_flight:
                task = tasks[heapq.heappop(pending)]
                pool.start(task.order, arrays, None, task.source)
            finished, lost = pool.collect(POLL_S, more=bool(pending))
            for batch in lost:
                heapq.heappush(pending, batch)
            for report in reports.take():
                pool.heard(report.batch)
                shares[report.batch] = report.share
            pool.replace_hung()
            for done in finished:
                made += sizes[done.batch]
                committed.add(done.batch)
                first = whole_batch(done.batch, done.images, store) if done.batch.index == 0 else None
                show_batch(run.recorder, config.synthesis, done.receipt, len(committed), first, curved=True)
                share, seconds = done.receipt.provenance.target_share, done.receipt.seconds
                counter.say(f"batch {done.batch}: {sizes[done.batch]} images, {share:.1%} on target, {seconds:.0f} s")
            if finished:
                run.recorder.flush()
            if finished and time.monotonic() > save_at:
                folder.save()
                save_at = time.monotonic() + SAVE_S
            under_way = sum(shares.get(batch, 0.0) * sizes[batch] for batch in pool.in_flight)
            counter.update(made + under_way)
            waits.update({"driver": f"{pool.absent} generators to start"} if pool.absent else {})
            metrics.set("images", made)
            metrics.set("batches_in_flight", len(pool.in_flight))
            metrics.set("generators", pool.at_hand)
            metrics.set("restarts", pool.lost, role="generator")
            metrics.set("waiting_s", waits.longest_s)
            metrics.send()


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


def _summarize(run: JobRun[SynthesizeConfig]) -> SynthesizeSummary:
    """Return the final figures, computed on quantized pixels."""
    config, store = run.config, ShardStore(run.folder.images)
    made = figures_of(store, store.committed(), config.teacher.classes)
    return SynthesizeSummary(
        method=config.synthesis.method,
        seed=config.seed,
        images=made.images,
        batches=made.batches,
        updates=updates_of(config.synthesis),
        images_per_class=made.images_per_class.tolist(),
        target_share=made.target_share,
        losses=made.losses,
        restarts=made.restarts,
        **run.hours(("images", config.generators.number, config.generators)),
        teacher_fingerprint=made.teacher,
        reused=run.reused(),
    )


def _report(folder: RunFolder, config: SynthesizeConfig, summary: SynthesizeSummary) -> None:
    write_card(folder, config, summary)
    save_image_grid(folder)
    if config.png and not (folder.path / "png").exists():
        export_folder(folder.place, folder.path / "png")


def _rows(summary: SynthesizeSummary) -> dict[str, str]:
    return {
        "images": f"{summary.images} in {summary.batches} batches, by {summary.method}",
        "on target": f"{summary.target_share:.1%} by the teacher, of the images as they are stored",
        "losses": ", ".join(f"{name} {value:.3g}" for name, value in summary.losses.items()),
        "made by earlier runs": f"{sum(summary.reused.values())} batches",
    }


JOB = Job(
    name="synthesize",
    check=_check,
    make=_make,
    rows=_rows,
    report=_report,
    files={"data set": "images", "data card": "README.md", "pictures": "images.png", "PNG files": "png"},
    is_whole=_is_whole,
)
