"""Every loop of a hub, in one list."""

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from perijove.db.notify import listen
from perijove.kit.loops import every
from perijove.reconcile.cull import Culler
from perijove.reconcile.housekeeping import Housekeeper
from perijove.reconcile.launches import run_launches
from perijove.reconcile.notices import Messenger
from perijove.reconcile.observe import Observer
from perijove.reconcile.probe import Prober
from perijove.reconcile.volumes import PERIOD, VolumeKeeper
from perijove.services import activity
from perijove.services.hub import Hub
from perijove.spawners.contract import KeepsVolumes

Step = Callable[[], Awaitable[None]]
Wait = Callable[[float], Awaitable[None]]


def start_loops(tasks: TaskGroup, hub: Hub, prober: Prober, *, database_url: str) -> None:
    """Start every loop of a hub in `tasks`; cancelling them is all it takes to stop."""

    def loop(
        period: float, step: Step, name: str, deadline: float, wait: Wait = anyio.sleep
    ) -> None:
        async def run() -> None:
            await every(period, step, name=name, deadline=deadline, wait=wait)

        tasks.start_soon(run, name=name)

    housekeeper = Housekeeper(hub)
    culler = Culler(hub, prober)
    loop(10, housekeeper.beat, "beat", 30)
    loop(600, housekeeper.purge, "purge", 120)
    period = hub.lifecycle.reporting_period.total_seconds()
    loop(min(60, max(1, period / 5)), culler.cull, "cull", 300)
    loop(5, lambda: activity.flush(hub), "activity", 30)
    loop(3, Messenger(hub).step, "notices", 180)
    loop(300, housekeeper.check_routes, "routes", 120)
    loop(1, hub.metrics.measure_loop, "loop-delay", 30)
    for name, placed in hub.spawners.items():
        observer = Observer(hub, name, placed, prober)
        loop(1, observer.look, f"observe:{name}", 300, wait=observer.pause)
        if isinstance(placed.spawner, KeepsVolumes):
            keeper = VolumeKeeper(hub, name, placed.spawner)
            loop(PERIOD, keeper.step, f"volumes:{name}", float("inf"), wait=keeper.pause)
    if database_url.startswith("postgresql"):

        def heard(what: str) -> None:
            hub.due.ring()
            hub.events.strike()
            if what == "routes":
                hub.routes.strike()

        loop(1, lambda: listen(database_url, heard), "listen", float("inf"))
    tasks.start_soon(hub.flights.serve, name="flights")
    tasks.start_soon(run_launches, hub, prober, name="launches")
