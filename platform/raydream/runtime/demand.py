"""What a run asks a cluster's autoscaler for: nodes for those of its processes that the cluster has no room for yet."""

from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from raydream.runtime.placement import Wanted


class Demand:
    """Placement groups that wait for nodes, each for one process: Ray takes a group of several for all or nothing.

    None of them is ever used. Once its node is there, the run counts that node and starts its process, and the group
    is taken back.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, list[PlacementGroup]] = {}

    def ask(self, missing: dict[str, Wanted]) -> None:
        """Ask for room for so many processes of each role, from now on and in place of what was asked for before."""
        self.release()
        for role, wanted in missing.items():
            waiting = self._waiting.setdefault(role, [])
            while len(waiting) > wanted.count:
                remove_placement_group(waiting.pop())
            waiting.extend(placement_group([wanted.resources]) for _ in range(wanted.count - len(waiting)))

    def release(self) -> None:
        """Take back the groups that have a place, which the processes themselves are to have; to be called often.

        A process that finds its place taken asks for it, too, and one node too many comes.
        """
        if not any(self._waiting.values()):
            return
        states = placement_group_table()
        for role, waiting in self._waiting.items():
            placed = [group for group in waiting if states.get(group.id.hex(), {}).get("state") == "CREATED"]
            for group in placed:
                remove_placement_group(group)
            self._waiting[role] = [group for group in waiting if group not in placed]
