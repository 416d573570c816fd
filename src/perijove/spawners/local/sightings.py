"""What the files of a launch prove, in the words of the contract."""

from perijove.spawners.contract import Handle, Phase, Sighting
from perijove.spawners.local.directory import Condition, Label, View


def sighting_of(label: Label, view: View, handle: Handle, *, has_leftovers: bool) -> Sighting:
    """Return the sighting; what left processes behind is not gone."""
    url = view.address.url if view.address else ""
    if view.condition is Condition.ALIVE:
        phase = Phase.RUNNING if url else Phase.PENDING
    elif view.condition is Condition.REQUESTED:
        phase = Phase.PENDING
    else:
        phase = Phase.RUNNING if has_leftovers else Phase.GONE
    return Sighting(
        name=label.name,
        phase=phase,
        handle=handle,
        owner=label.owner,
        url=url,
        end=view.end if phase is Phase.GONE else None,
        since=view.since,
    )
