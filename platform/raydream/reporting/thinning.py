"""Thins out rows that a figure cannot resolve, so that a run of a million rows is drawn in seconds."""

import numpy as np
import pandas as pd

MOST_POINTS = 1000
"""most rows of a curve: about the number of pixels of a wide figure"""
MOST_BARS = 1000
"""most bars of a lane of the timeline"""


def thinned_curve(rows: pd.DataFrame, most: int = MOST_POINTS) -> pd.DataFrame:
    """Return the lowest and the highest row of each of `most` / 2 stretches of a curve, so that outliers stay.

    Args:
        rows: in the order in which they are drawn, with finite or infinite numbers in `value`.
        most: rows of the result, at most; at least 2.
    """
    if len(rows) <= most:
        return rows
    values = rows["value"].to_numpy(dtype=float)
    stretches = np.array_split(np.arange(len(rows)), most // 2)
    kept = {int(of(values[each])) + each[0] for each in stretches for of in (np.argmin, np.argmax)}
    return rows.iloc[sorted(kept)]


def joined_bars(rows: pd.DataFrame, length_s: float, most: int = MOST_BARS) -> pd.DataFrame:
    """Join the bars of a lane that begin within the same one of `most` equal stretches of time.

    Args:
        rows: spans (`time_s`, `duration_s` and `round`), in any order.
        length_s: length of the time axis.
        most: bars of the result, at most, where all begin within the axis.

    Returns:
        spans in the order of their beginnings; a joined one has the round of its first.
    """
    rows = rows.sort_values("time_s", kind="stable")
    if len(rows) <= most:
        return rows
    stretch = np.digitize(rows["time_s"], np.linspace(0.0, length_s, most + 1)[1:-1])
    ends = (rows["time_s"] + rows["duration_s"]).groupby(stretch).max().to_numpy()
    first = rows.iloc[np.unique(stretch, return_index=True)[1]]
    return first.assign(duration_s=ends - first["time_s"].to_numpy())
