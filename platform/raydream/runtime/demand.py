"""What a run asks a cluster's autoscaler for: nodes for those of its processes that the cluster has no room for yet."""

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from raydream.runtime.preflight import Wanted


class Demand:
    """Placement groups that wait for nodes, each for one process: Ray takes a group of several for all or nothing.

    None of them is ever used. Once its node is there, the run counts that node and starts its process, and the group
    is taken back.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[PlacementGroup]] = {}

    def ask(self, missing: dict[str, Wanted]) -> None:
        """Ask for room for so many processes of each role, from now on and in place of what was asked for before."""
        for role, wanted in missing.items():
            before = self._waiting.get(role, [])
            waiting = [group for group in before if not group.wait(0)]
            kept = waiting[: wanted.count]
            for group in before:
                if group not in kept:
                    remove_placement_group(group)
            new = [placement_group([wanted.resources]) for _ in range(wanted.count - len(kept))]
            self._waiting[role] = kept + new
