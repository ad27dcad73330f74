"""README and the landing page: the strip of images, the quickstart, and one table of results."""

from docs.figures.pruning import pruned_cifar10, pruned_digits
from docs.figures.students import cifar10_runs
from docs.figures.text import FIGURES, figure, label, mean, number, older, over, percent, results, table


@figure
def readme_results() -> str:
    """Table: students and smaller networks on digits and CIFAR-10."""
    digits, cifar = results("digits_methods")["rows"], results("cifar10_clock")["rows"]
    teacher = percent(results("cifar10_pruning")[0]["teacher_lossless"])
    lines = [["teacher", percent(results("digits_transfer")["runs"][0]["teacher_accuracy"]), teacher]]
    for name in ("noise", "deepdream", "deep_inversion", "adaptive"):
        words = f"student, equal budget: {older(name)}"
        lines.append([words, mean(digits[name]), mean(cifar[name]["accuracy"])])
    transfer = results("digits_transfer")["table"]["deep_inversion"]["student_accuracy"]
    many = mean(over(cifar10_runs("deep_inversion"), "student_accuracy"))
    lines.append(["student, more images: 4,096 and 2,048", f"{mean(transfer)} (8 seeds)", f"{many} (3 seeds)"])
    hour = percent(results("cifar10_hour")[0]["student_accuracy"])
    lines.append(["student, an hour of two cores", "", hour])
    for source in ("deep_inversion", "adaptive"):
        (run,) = pruned_cifar10(source, 0.5)
        half = mean(over(pruned_digits(source), "pruned_test"))
        words = f"half of the filters removed: {label(source)}"
        lines.append([words, f"{half} (5 seeds)", percent(run["pruned_lossless"])])
    return table("what | digits | CIFAR-10", lines)


FIGURES["quickstart_teacher"] = lambda: percent(results("quickstart")["teacher"])
FIGURES["quickstart_student"] = lambda: percent(results("quickstart")["student"])


# The strip

FIGURES["strip_images"] = lambda: number(results("cifar10_strip")["images"], 0)
FIGURES["strip_updates"] = lambda: number(results("cifar10_strip")["updates"], 0)
FIGURES["strip_teacher_share"] = lambda: percent(results("cifar10_strip")["teacher_share"], 0)
FIGURES["strip_verifier_share"] = lambda: percent(results("cifar10_strip")["verifier_share"], 0)
