"""The test bed's cluster, with what a test needs to look at it beside the spawner."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from perijove.spawners.contract import LaunchSpec
from perijove.spawners.kubernetes.spawner import KubernetesSpawner
from tests import beds
from tests.contract.spawners.kubernetes_site import (
    KubernetesSite,
    cluster,
    kubernetes_site,
    shown,
)
from tests.contract.spawners.sites import NAME, make_spec

__all__ = ["cluster", "kubernetes_site"]

PROGRAM: Final = ("python3", "-I", "-S", "/srv/program.py")
"""The suite's program, in the image."""


def order(name: str = NAME, mode: str = "plain", **changes: Any) -> LaunchSpec:
    """Return a launch of the program in the image."""
    return make_spec(name, **{"command": [*PROGRAM, mode], **changes})


def python(source: str) -> list[str]:
    """Return the command of a server that is a few lines of Python."""
    return ["python3", "-I", "-S", "-c", source]


def ours(site: KubernetesSite, kind: str) -> list[Any]:
    """Return all objects of one kind that the test's hub has made."""
    chosen = f"--selector=perijove.org/installation={site.own()}"
    items: list[Any] = shown(kind, f"--namespace={site.namespace}", chosen)["items"]
    return items


@contextmanager
def disturbed(*what: str, mend: tuple[str, ...]) -> Iterator[None]:
    """Disturb the cluster, and mend it whatever happens."""
    beds.disturb("kubernetes", *what)
    try:
        yield
    finally:
        beds.disturb("kubernetes", *mend)


@pytest.fixture
def site(kubernetes_site: KubernetesSite) -> KubernetesSite:
    """Give the cluster, to hubs whose servers share a namespace."""
    return kubernetes_site


@pytest.fixture
async def spawner(site: KubernetesSite) -> AsyncIterator[KubernetesSpawner]:
    """Give an entered spawner on the cluster."""
    async with site.place(KubernetesSpawner) as spawner:
        yield spawner
