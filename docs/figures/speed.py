"""Speed of the inversion, cost of the runtime, and what large runs need."""

from docs.figures.text import FIGURES, figure, mean, number, percent, results, table
from raydream.evaluation.intervals import summarize


@figure
def inversion_speed() -> str:
    """Table: seconds for an update of three loops."""
    told = results("inversion_cifar10")
    methods = [told[name] for name in ("deep_inversion", "adaptive")]

    def line(words: str, of: str, kind: str = "", note: str = "") -> list[str]:
        cells = []
        for method in methods:
            ratio = (
                f" ({note.format(number(method[f'{kind}_{of[-4:]}'], 1 if kind == 'speedup' else 2))})" if kind else ""
            )
            cells.append(number(method["stages"][0][f"{of}_s"], 3) + ratio)
        return [words, *cells]

    return table(
        "seconds per update | DeepInversion | adaptive",
        [
            line("plain loop, fp32", "plain"),
            line("engine, bf16", "engine_bf16", "speedup", "{}x as fast"),
            line("limit, bf16", "limit_bf16", "over_limit", "the engine takes {}x"),
            line("engine, fp32", "engine_fp32", "speedup", "{}x as fast"),
            line("limit, fp32", "limit_fp32", "over_limit", "the engine takes {}x"),
        ],
    )


@figure
def inversion_quality() -> str:
    """Table: images of the engine beside those of the plain loop."""
    told, lines = results("inversion_cifar10")["quality"], []
    for name, words in (("engine", "engine, bf16"), ("plain", "plain loop, fp32")):
        teacher, verifier, distance = (
            summarize(told[name][key]["values"]) for key in ("teacher_share", "verifier_share", "feature_distance")
        )
        lines.append([words, mean(teacher, 0), mean(verifier, 0), mean(distance, scale=1, unit="")])
    return table("loop | teacher | ResNet-56 | feature distance", lines)


FIGURES["engine_speedup"] = lambda: f"{number(results('inversion_cifar10')['deep_inversion']['speedup_bf16'])} times"
FIGURES["engine_update"] = lambda: (
    f"{number(results('inversion_cifar10')['deep_inversion']['stages'][0]['engine_bf16_s'], 2)} s"
)


@figure
def runtime_costs() -> str:
    """Table: what Ray, the buffer and shards cost."""
    told = results("runtime")
    ratios = {name: number(value, 2) for name, value in told.items() if isinstance(value, float)}
    calls = [number(told[f"buffer_ops_per_s_{held}"], 0) for held in (10, 10000)]
    pixels, stored = (number(told[f"{name}_bytes_per_image"], 0) for name in ("pixel", "store"))
    rows = {
        "batches through generator, object store and shard, against the synthesizer in a plain loop": (
            f"{ratios['runtime_efficiency']} of its rate"
        ),
        "two generators of one thread against one": (
            f"{ratios['two_generator_speedup']} times the rate "
            f"(two plain processes without Ray: {ratios['two_bare_processes_speedup']})"
        ),
        "share of a student's step spent waiting for images that are available": number(told["student_wait_share"], 3),
        "minibatches through the buffer, against `ray.get` of the same arrays": (
            f"{ratios['store_read_ratio']} of the rate, {number(told['read_step_ms'])} ms for 256 CIFAR images"
        ),
        "the buffer's calls per second, with 10 and with 10,000 batches held": (
            f"{' and '.join(calls)} (the answer then names more batches)"
        ),
        f"memory of the object store per image of {pixels} bytes; of the buffer per batch; of a generator": (
            f"{stored} bytes; {buffer_memory()}; {number(told['generator_mib'] / 1024, 2)} GiB"
        ),
        "committing a shard, of the time a batch takes": percent(told["durability_share_of_batch"]),
    }
    return table("what | figure", rows.items())


@figure
def buffer_memory() -> str:
    """Phrase: the buffer's memory for a batch."""
    told = results("runtime")
    return f"{number((told['buffer_mib_10000'] - told['buffer_mib_10']) * 1024 / (10000 - 10))} KiB"


FIGURES["runtime_batch"] = lambda: f"{number(results('runtime')['seconds_per_batch'])} s"


@figure
def simulated() -> str:
    """Table: microseconds of deciding by tenths of a simulated run."""
    lines = [
        [str(tenth), *(number(part[name], 0) for name in ("begin", "finish", "draw"))]
        for tenth, part in enumerate(results("simulate_scale")["parts"], start=1)
    ]
    return table("tenth | a batch begun | a batch taken in | 5 steps of 256 drawn", lines)


@figure
def simulated_deciding() -> str:
    """Phrase: milliseconds for a batch begun and taken in, on average."""
    parts = results("simulate_scale")["parts"]
    return f"{number(sum(part['begin'] + part['finish'] for part in parts) / len(parts) / 1000, 2)} ms"


@figure
def simulated_draws() -> str:
    """Phrase: milliseconds of the fastest and the slowest tenth's draws."""
    draws = [part["draw"] / 1000 for part in results("simulate_scale")["parts"]]
    return f"{number(min(draws), 0)} to {number(max(draws), 0)} ms"


@figure
def simulated_listing() -> str:
    """Phrase: seconds to list all shards, and to rebuild the buffer."""
    told = results("simulate_scale")
    return f"{number(told['listing_s'])} s and {number(told['buffer_restart_s'])} s"


@figure
def steady_growth() -> str:
    """Phrase: KiB by which the driver's and the buffer's memory grew a batch, over a whole run."""
    told = results("steady")
    grown = (told[f"{process}_bytes_per_batch"] / 1024 for process in ("driver", "buffer"))
    return " and ".join(f"{number(each)} KiB" for each in grown)


@figure
def streaming_student() -> str:
    """Phrase: the rate of a student on streamed images, of that on images in memory."""
    told = results("streaming")
    streamed, held = (told[feed]["images_per_s_with_student"] for feed in ("stream", "memory"))
    return percent(streamed / held, 0)


FIGURES["streaming_rate"] = lambda: number(results("streaming")["large_set"]["images_per_s"], 0)


@figure
def starting() -> str:
    """Table: what starting costs today and before, by job."""
    words = {
        "demo": "`raydream demo`",
        "tiny": "a tiny distillation in lockstep",
        "transfer": "a transfer of 1,000 images",
    }
    told = {(each["job"], each["tree"]): each for each in results("start")["medians"]}
    lines = []
    for job, name in words.items():
        now, before = told[job, "now"], told[job, "before"]
        cells = [
            f"{number(now[each])} s ({number(now[each] / before[each], 2)})"
            for each in ("first_step_s", "wall_s", "cpu_s")
        ]
        lines.append([name, *cells])
    return table("job | first step of the student | until the end | CPU time", lines)


@figure
def asynchrony() -> str:
    """Table: what it costs, and brings, to let generators and student drift apart."""
    words = {"lockstep": "lockstep", "default bound": "one round, the default", "four rounds": "four rounds"}
    lines = []
    for name, told in results("asynchrony")["settings"].items():
        accuracy = summarize(
            [run["student_accuracy"] for run in results("asynchrony")["runs"] if run["setting"] == name]
        )
        waited, age = number(told["student_waited_s"]), number(told["staleness_steps"], 0)
        lines.append([words[name], mean(accuracy), number(told["rounds_of_lockstep"], 2), f"{waited} s", age])
    times = "duration of the rounds, of lockstep's | the student waited"
    return table(f"staleness bound | student | {times} | age of a batch's snapshot, in steps", lines)


@figure
def soak() -> str:
    """Phrase: faults of the soak, and the runs in which they were."""
    told = results("soak")
    return f"{told['all_faults']} faults in {len(told['runs'])} runs ({number(told['minutes'], 0)} minutes)"


@figure
def soak_outcome() -> str:
    """Phrase: what was lost and duplicated in the soak, and what students know."""
    told = results("soak")
    kept = f"of {told['accepted']} accepted batches {told['lost']} were lost and {told['duplicated']} duplicated"
    disturbed, quiet = (summarize([run["student_accuracy"] for run in told[name]]) for name in ("runs", "undisturbed"))
    students = f"students reached {mean(disturbed)}, without faults {mean(quiet)} ({len(told['undisturbed'])} runs)"
    return f"{kept}; {students}; the longest time without news of a run was {number(told['longest_stall_s'], 0)} s"


@figure
def updates() -> str:
    """Table: an update of the pixels, and a step of a student, before and now."""
    lines = [
        [each["work"], number(each["ms"]["before"]), f"{number(each['ms']['now'])} ({number(each['ratio']['now'], 2)})"]
        for each in results("updates")["rows"]
    ]
    return table("ms of one CPU thread | version 0.1 | now", lines)
