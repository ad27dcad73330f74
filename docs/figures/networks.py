"""A user's network: what the doctor finds, and how fast a teacher trains."""

from docs.figures.text import FIGURES, figure, label, number, percent, results, table

FIGURES["train_speed"] = lambda: number(results("train_speed")["speed"]["speed_of_plain"], 2)

MISTAKES = {
    "pixels": "pixels of 0 to 255",
    "swapped": "mean and standard deviation swapped",
    "bgr": "BGR",
    "size": "twice the size",
    "untrained": "untrained BN statistics",
    "nan": "NaN",
    "none": "false alarms without a mistake",
}
EVIDENCE = {"nothing": "without images", "images": "with real images", "labels": "with labeled images"}


@figure
def doctor_hits() -> str:
    """Table: mistakes that the doctor finds, of those seeded, by what it is shown."""
    lines = []
    for mistake, words in MISTAKES.items():
        right = {"false alarm"} if mistake == "none" else {"hit", "refused"}
        cells = []
        for evidence in EVIDENCE:
            runs = [run for run in results("doctor") if (run["mistake"], run["evidence"]) == (mistake, evidence)]
            runs = [run for run in runs if run["outcome"] != "not applicable"]
            refused = sum(run["outcome"] == "refused" for run in runs)
            note = f", {refused} refused" if refused and mistake != "none" else ""
            cells.append(f"{sum(run['outcome'] in right for run in runs)} of {len(runs)}{note}")
        lines.append([words, *cells])
    return table(" | ".join(["mistake", *EVIDENCE.values()]), lines)


@figure
def unlike_networks() -> str:
    """Table: unlike networks through the jobs."""
    lines = []
    for run in results("unlike"):
        cells = [run["network"], percent(run["accuracy"]) if run["trained"] else "random weights"]
        cells.append(f"{len(run['findings'])} findings" if run.get("findings") else "nothing wrong")
        cells.append(
            f"{percent(run['target_share'], 0)} ({label(run['method'])})" if "target_share" in run else "refused"
        )
        for step in ("transfer", "prune", "quantize"):
            works = isinstance(run.get(step), float)
            accuracy = run.get(f"{step}_accuracy")
            cells.append(("works" if accuracy is None else percent(accuracy)) if works else "refused")
        lines.append(cells)
    return table("network | accuracy | doctor | on target | small student | half of the filters | 8 bits", lines)
