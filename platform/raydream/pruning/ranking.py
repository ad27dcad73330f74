"""Chooses the next channels to remove: those of the lowest importance in the whole network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raydream.evaluation.latency import Latency
from raydream.networks.pruned import Widths
from raydream.pruning.costs import Cost, total
from raydream.pruning.streams import Stream

Timing = Callable[[str, int, int], Latency]
"""value of a layer by its name, with the given channels in and out"""


@dataclass(frozen=True)
class Rule:
    """The rule by which channels are chosen.

    Attributes:
        least: smallest number of channels that stay in each stream, >= 1.
        block: number of channels of a stream that are removed together, >= 1.
        by_cost: compare importance per saved cost and not per channel, which loses the least for an amount saved.
        latency: latency of a layer, for hardware-aware importance; None: latency does not count. A removal makes the
            network faster where the middle halves of the times before and after lie apart, and not by chance.
        eta: weight of latency in eq. 10, >= 0: at 1, a share of the network's latency counts as much as the same
            share of the network's importance.
    """

    least: int
    block: int = 1
    by_cost: bool = False
    latency: Timing | None = None
    eta: float = 0.0


def choose_channels(
    streams: Sequence[Stream],
    importance: Mapping[str, Tensor],
    widths: Widths,
    cost: Cost,
    amount: float,
    rule: Rule,
) -> dict[str, list[int]]:
    """Choose channels whose removal saves an amount, block by block, the least important first.

    Channels whose removal saves nothing stay. Hardware-aware (eq. 10), a block is the smallest multiple of `rule.block`
    whose removal makes the network faster, and where there is no such multiple the stream stays as it is. Blocks are
    compared by importance per channel, or per cost that goes with them (`Rule.by_cost`).

    Args:
        importance: importance by stream, [channels] each.
        widths: widths of the network's layers.
        cost: the cost to save, and `amount` its amount.

    Returns:
        channels by stream; they save less than `amount` where no more blocks can be removed.
    """
    order = {stream.name: torch.argsort(importance[stream.name], stable=True).tolist() for stream in streams}
    removed = {stream.name: 0 for stream in streams}
    chooser = _Chooser(importance, widths, cost, rule)
    saved = 0.0
    while saved < amount * (1.0 - 1e-9):
        blocks = [(stream, chooser.block(stream, order[stream.name], removed[stream.name])) for stream in streams]
        candidates = [(block.score, stream.name, stream, block) for stream, block in blocks if block is not None]
        if not candidates:
            break
        _, name, stream, block = min(candidates, key=lambda candidate: candidate[:2])
        saved += _saved(cost, chooser.widths, stream, block.channels)
        chooser.widths = _narrowed(chooser.widths, stream, block.channels)
        removed[name] += block.channels
    return {name: sorted(order[name][:count]) for name, count in removed.items() if count}


def most_removable(streams: Sequence[Stream], widths: Widths, cost: Cost, rule: Rule) -> float:
    """Return the share in [0, 1) of a cost saved by removing all channels that a rule allows, at any latency."""
    before = total(cost, widths)
    for stream in streams:
        blocks = max(0, stream.channels - rule.least) // rule.block
        widths = _narrowed(widths, stream, blocks * rule.block)
    return 1.0 - total(cost, widths) / before


@dataclass(frozen=True)
class _Block:
    channels: int
    score: float


class _Chooser:
    def __init__(self, importance: Mapping[str, Tensor], widths: Widths, cost: Cost, rule: Rule) -> None:
        self.widths = widths
        self._cost, self._rule = cost, rule
        self._importance = {name: values.tolist() for name, values in importance.items()}
        self._all = sum(map(sum, self._importance.values())) or 1.0
        timing = rule.latency
        self._latency = sum(timing(name, *width).median_s for name, width in widths.items()) if timing else 0.0

    def block(self, stream: Stream, order: list[int], removed: int) -> _Block | None:
        """Return the next removable channels of a stream, and their importance."""
        rule, most = self._rule, stream.channels - removed - self._rule.least
        for channels in range(rule.block, most + 1, rule.block):
            error = sum(self._importance[stream.name][place] for place in order[removed : removed + channels])
            score, saved = error / self._all, _saved(self._cost, self.widths, stream, channels)
            if saved <= 0.0:
                return None
            if rule.latency is not None:
                gain = _gain(rule.latency, self.widths, stream, channels)
                if gain is None:
                    continue
                score -= rule.eta * gain / self._latency
            return _Block(channels, score / (saved if rule.by_cost else float(channels)))
        return None


def _narrowed(widths: Widths, stream: Stream, channels: int) -> Widths:
    """Return the widths after a number of a stream's channels is removed."""
    after = dict(widths)
    for part in stream.parts:
        channels_in, channels_out = after[part.layer]
        # All channels of a stream have as many places in a layer, but for those that a concatenation repeats.
        places = channels * len(part.places[0])
        after[part.layer] = (
            channels_in - places * (part.side != "out"),
            channels_out - places * (part.side != "in"),
        )
    return after


def _saved(cost: Cost, widths: Widths, stream: Stream, channels: int) -> float:
    after = _narrowed(widths, stream, channels)
    layers = {part.layer for part in stream.parts}
    return sum(cost(layer, *widths[layer]) - cost(layer, *after[layer]) for layer in layers)


def _gain(timing: Timing, widths: Widths, stream: Stream, channels: int) -> float | None:
    """Return the seconds that a removal saves; None where the times before and after overlap."""
    after = _narrowed(widths, stream, channels)
    layers = {part.layer for part in stream.parts}
    before_s, after_s = ([timing(layer, *of[layer]) for layer in layers] for of in (widths, after))
    if sum(each.high_s for each in after_s) >= sum(each.low_s for each in before_s):
        return None
    return sum(each.median_s for each in before_s) - sum(each.median_s for each in after_s)
