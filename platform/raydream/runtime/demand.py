"""Requests to a cluster's autoscaler: nodes for the run's processes that the cluster has no room for yet."""

from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from raydream.runtime.placement import Wanted


class Demand:
    """Placement groups that wait for nodes, one per process: Ray places a group of several all or nothing.

    No group is ever used. Once its node is available, the run counts that node and starts its process, and the group is
    removed.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[PlacementGroup]] = {}

    def ask(self, missing: dict[str, Wanted]) -> None:
        """Request room for a number of processes of each role; this replaces the previous request."""
        self.release()
        for role, wanted in missing.items():
            waiting = self._waiting.setdefault(role, [])
            while len(waiting) > wanted.count:
                remove_placement_group(waiting.pop())
            waiting.extend(placement_group([wanted.resources]) for _ in range(wanted.count - len(waiting)))

    def release(self) -> None:
        """Remove the groups that have a place, which their processes need; the driver calls this often.

        A process that finds its place taken also requests one, and the autoscaler adds one node too many.
        """
        if not any(self._waiting.values()):
            return
        states = placement_group_table()
        for role, waiting in self._waiting.items():
            placed = [group for group in waiting if states.get(group.id.hex(), {}).get("state") == "CREATED"]
            for group in placed:
                remove_placement_group(group)
            self._waiting[role] = [group for group in waiting if group not in placed]
