"""The example files do for people what they say."""

from collections.abc import Mapping
from typing import Any

import pytest

from perijove.domain.options import Choice, apply
from perijove.domain.policy import Limits, Policy, evaluate
from perijove.domain.profile import Profile
from perijove.domain.storage import Kept, storage_under
from perijove.services.offers import policy_names
from perijove.services.profiles import refusal_of
from perijove.settings import Settings, load
from tests import beds

GIB = 2**30


class Site:
    """An example file, asked what people get."""

    def __init__(self, name: str) -> None:
        """Load it."""
        self.settings: Settings = load(beds.ROOT / f"deploy/examples/{name}.toml", {})
        only = next(iter(self.settings.spawners))
        self.profiles: Mapping[str, Profile] = {
            each.name: Profile.from_body(
                each.name, each.body(only, self.settings.images), revision=1
            )
            for each in self.settings.profiles
        }

    def limits(self, *groups: str) -> Limits:
        """Return what holds for somebody of these groups."""
        sections = self.settings.policies
        policies = [
            Policy.from_body(name, section.body(), id=number, revision=1)
            for number, (name, section) in enumerate(
                zip(policy_names(sections), sections, strict=True)
            )
        ]
        return evaluate(policies, user="somebody", groups=groups)

    def startable(self, *groups: str) -> list[str]:
        """Return the profiles that somebody of these groups can start."""
        limits = self.limits(*groups)
        return [
            name
            for name, profile in self.profiles.items()
            if profile.is_seen_by(limits.groups) and refusal_of(profile, limits) is None
        ]

    def start(self, profile: str, *groups: str, **options: Any) -> Choice:
        """Return what a start would get."""
        return apply(self.profiles[profile], self.limits(*groups), options)


@pytest.mark.parametrize(
    ("groups", "sizes"),
    [
        ((), {"small": (1, 4)}),
        (("silver",), {"small": (1, 4), "medium": (2, 8)}),
        (("gold",), {"small": (1, 4), "medium": (2, 8), "large": (4, 16)}),
    ],
)
def test_three_sizes_by_tier(groups: tuple[str, ...], sizes: dict[str, tuple[int, int]]) -> None:
    """Each tier has the sizes it should have, exactly (R20), and no other."""
    site = Site("three-sizes")
    assert site.startable(*groups) == list(sizes)
    for name, (cores, memory) in sizes.items():
        found = site.start(name, *groups).resources
        assert (found.cpu, found.memory_bytes) == (cores, memory * GIB)


def test_tiers_have_their_images_and_limits() -> None:
    """Who pays more has a preview, images of their own, and environments (R58, R85)."""
    site = Site("three-sizes")
    bronze, gold = site.limits(), site.limits("gold")
    said = {str(limit.rule): limit.value for limit in bronze.by_rule.values()}
    assert (said["environments"], said["storage"], said["named-servers"]) == (False, 2 * GIB, 0)
    assert {str(limit.rule): limit.value for limit in gold.by_rule.values()}["environments"] is True
    own = "registry.example.org/people/ida/x:1"
    assert site.start("large", "gold", image=own).image == own
    assert site.start("large", "gold", image="preview").image.endswith(":next")
    assert site.start("small", image="minimal").image == (
        "quay.io/jupyter/minimal-notebook:2026-11-16"
    )


@pytest.mark.parametrize(("groups", "size"), [((), 2), (("silver",), 10), (("gold",), 50)])
def test_a_tier_has_one_size_of_volume(groups: tuple[str, ...], size: int) -> None:
    """A person's volume is made once: which profile was first must not decide how large it is."""
    site = Site("three-sizes")
    limits = site.limits(*groups)
    kept = [storage_under(site.profiles[each].storage, limits) for each in site.startable(*groups)]
    assert {(each.kept, each.size_bytes) for each in kept if each} == {(Kept.USER, size * GIB)}


def test_five_back_ends_in_one_hub() -> None:
    """Every kind of spawner has a profile, and choices reach the platform they are for."""
    site = Site("five-back-ends")
    kinds = {section.kind for section in site.settings.spawners.values()}
    assert kinds == {"local", "docker", "kubernetes", "slurm", "gridengine"}
    assert {profile.spawner for profile in site.profiles.values()} == set(site.settings.spawners)
    gpu = site.start("cloud", size="gpu")
    assert (gpu.resources.gpu, gpu.image) == (1, "registry.example.org/hub/tensors:2026.11")
    assert gpu.platform == {"node_selector": {"example.org/pool": "gpu"}}
    assert site.startable("course-2027") == ["look", "course"]
