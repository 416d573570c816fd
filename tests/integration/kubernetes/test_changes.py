"""What the cluster's watch tells makes a survey come sooner."""

from pathlib import Path

import anyio
import pytest

from perijove.reconcile.observe import Observer
from perijove.services.hub import PlacedSpawner
from perijove.spawners.contract import Phase, SpawnerSettings
from perijove.spawners.kubernetes.spawner import KubernetesSpawner
from tests.contract.spawners.kubernetes_site import KubernetesSite
from tests.contract.spawners.sites import NAME, find, phase, recorded
from tests.hubs import PATIENCE, running_hub
from tests.integration.kubernetes.conftest import order

pytestmark = [pytest.mark.anyio, pytest.mark.needs("kubernetes"), pytest.mark.timeout(300)]


async def test_a_crash_is_noticed_before_a_survey_is_due(
    site: KubernetesSite, spawner: KubernetesSpawner, tmp_path: Path
) -> None:
    """What becomes of a server that is killed is seen, however long it is until a survey."""
    settings = SpawnerSettings(kind="kubernetes", survey_period=3600, survey_busy_period=0.1)
    placed = PlacedSpawner(spawner=spawner, settings=settings)
    async with running_hub(f"sqlite:///{tmp_path}/hub", tmp_path, loops=False) as hub:
        observer = Observer(hub.hub, "kubernetes", placed, hub.prober)
        await spawner.start(order(), recorded)
        killed = await site.kill(await phase(spawner, NAME, Phase.RUNNING))

        gone = None
        with anyio.fail_after(PATIENCE):
            while gone is None or gone.phase is not Phase.GONE:
                await observer.pause(0)  # It may be told of more than the end.
                gone = await find(spawner, NAME)

    assert gone.end is not None
    assert gone.end.cause is killed.cause
