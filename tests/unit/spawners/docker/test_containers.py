"""What the engine is asked to make: everything that a launch has, and nothing more."""

from itertools import product
from typing import Any

import pytest

from perijove.domain.errors import SpawnerRejected
from perijove.domain.launch import Resources
from perijove.spawners.contract import LaunchSpec, VolumeSpec
from perijove.spawners.docker.containers import (
    Identity,
    container_config,
    image_of,
    mount_of,
    settings_for,
)
from perijove.spawners.docker.labels import read_labels, readable_labels
from perijove.spawners.docker.sections import DockerOverrides, DockerSettings
from tests.contract.spawners.sites import make_spec

VOLUME = VolumeSpec(name="pj-inst-v", path="/home/ann")


def made(spec: LaunchSpec, **settings: Any) -> Any:
    """Return the description of a launch's container."""
    section = settings_for(spec, DockerSettings(**{"image": "a/b:1", **settings}))
    return container_config(spec, section, network="net", identity=Identity(), labels={})


def test_image_of_the_profile_comes_first() -> None:
    """The section's image is for profiles that name none; without either nothing starts."""
    section = DockerSettings(image="site/default:1")

    assert image_of(make_spec(image="profile/own:2"), section) == "profile/own:2"
    assert image_of(make_spec(), section) == "site/default:1"
    with pytest.raises(SpawnerRejected) as refused:
        image_of(make_spec(), DockerSettings())
    assert refused.value.code == "config-missing"


@pytest.mark.parametrize(
    "image", ["../containers/x/json", "a/b:1?x=y", "a/b#1", "a b/c:1", "a//b:1", "A/b/C:1", "é/é:1"]
)
def test_image_is_never_more_than_a_name(image: str) -> None:
    """What could be something else in a request to the engine is no image's name."""
    with pytest.raises(SpawnerRejected) as refused:
        image_of(make_spec(image=image), DockerSettings())

    assert refused.value.code == "image-invalid"


def test_platform_says_only_what_it_says() -> None:
    """What a profile leaves out is the section's; what it says replaces it, also by nothing."""
    section = DockerSettings(shm_size="1 GiB", dns=["10.0.0.1"], user="1:1")
    spec = make_spec(platform={"dns": [], "user": "2:2"})

    chosen = settings_for(spec, section)

    assert (chosen.shm_size, chosen.dns, chosen.user) == (2**30, [], "2:2")


def test_nothing_is_asked_for_that_was_not_ordered() -> None:
    """Without resources there are no limits of them, without volumes no mounts, no ports."""
    host = made(make_spec())["HostConfig"]

    assert not {"NanoCpus", "Memory", "MemorySwap", "DeviceRequests", "PortBindings"} & host.keys()
    assert (host["Mounts"], host["CapAdd"], host["CapDrop"]) == ([], [], ["ALL"])


def test_gpus_are_requested() -> None:
    """So many as the launch was admitted with."""
    host = made(make_spec(resources=Resources(gpu=2)))["HostConfig"]

    assert host["DeviceRequests"] == [{"Count": 2, "Capabilities": [["gpu"]]}]


def test_section_has_the_last_word_on_the_environment() -> None:
    """The address to listen at is the spawner's; the section's variables win over everything."""
    spec = make_spec(environment={"A": "launch", "B": "launch"})

    environment = made(spec, environment={"B": "section"}, port=9999)["Env"]

    assert "A=launch" in environment
    assert "B=section" in environment
    assert "B=launch" not in environment
    assert f"JUPYTERHUB_SERVICE_URL=http://0.0.0.0:9999{spec.prefix}" in environment


@pytest.mark.parametrize(("entry", "begins"), [(True, "python3"), (False, "jupyterhub-singleuser")])
def test_server_with_volumes_begins_with_a_look_at_them(entry: bool, begins: str) -> None:
    """The command is wrapped where there are volumes to look at, unless the image cannot."""
    config = made(make_spec(command=["jupyterhub-singleuser"], volumes=[VOLUME]), entry=entry)

    assert config["Cmd"][0] == begins
    assert config["Cmd"][-1] == "jupyterhub-singleuser"
    assert 'PERIJOVE_VOLUMES=["/home/ann"]' in config["Env"]
    assert config["HostConfig"]["Mounts"] == [
        {"Type": "volume", "Source": "pj-inst-v", "Target": "/home/ann"}
    ]


def test_without_a_command_it_is_the_images() -> None:
    """An empty command leaves it to the image what is run."""
    assert "Cmd" not in made(make_spec(command=[]))


@pytest.mark.parametrize(
    ("user", "server", "source"),
    [("ann", "", "/d/ann--_default"), ("a.b@c.org", "lab", "/d/a.b@c.org--lab")],
)
def test_mounts_are_of_this_person_and_server(user: str, server: str, source: str) -> None:
    """Names stand in a template as they are; the server without a name has one of its own."""
    mounts = [{"source": "/d/{user}--{server}", "target": "/x"}]
    spec = make_spec(user_name=user, server_name=server, platform={"mounts": mounts})

    (mount,) = made(spec)["HostConfig"]["Mounts"]

    assert mount == {"Type": "bind", "Source": source, "Target": "/x", "ReadOnly": True}


@pytest.mark.parametrize(
    "template",
    [
        "{user}--{server}",
        "{server}--{user}",
        "{user}.{server}",
        "{server}@{user}",
        "{user}-+{server}",
    ],
)
def test_no_two_servers_share_what_is_named_by_both(template: str) -> None:
    """However names are chosen, what is mounted is one server's of one person."""
    tails = ("".join(each) for length in range(5) for each in product("a.-@+_", repeat=length))
    users = [f"a{tail}" for tail in tails if ".." not in tail]
    servers = ["", "a", "aa", "a-a", "a-a-a", "default"]
    mounts = [{"source": f"/d/{template}", "target": "/x"}]
    (mount,) = DockerOverrides.model_validate({"mounts": mounts}).mounts

    sources = {
        mount_of(mount, user_name=user, server_name=server)["Source"]
        for user in users
        for server in servers
    }

    assert len(sources) == len(users) * len(servers)


@pytest.mark.parametrize("user", ["..", ".", "a/b", "a..b", "a:b", "a,b", "-a", "é", "a\nb", "a b"])
def test_a_name_that_is_no_plain_part_is_refused(user: str) -> None:
    """What could lead out of the directory, or be read in two ways, starts nothing."""
    spec = make_spec(user_name=user, platform={"mounts": [{"source": "/d/{user}", "target": "/x"}]})

    with pytest.raises(SpawnerRejected) as refused:
        made(spec)
    assert refused.value.code == "volume-failed"


def test_read_only_containers_have_a_place_for_temporary_files() -> None:
    """Where nothing can be written, there is still a directory for what is only for now."""
    host = made(make_spec(), read_only=True)["HostConfig"]

    assert host["ReadonlyRootfs"]
    assert set(host["Tmpfs"]) == {"/tmp"}
    assert "exec" in host["Tmpfs"]["/tmp"].split(",")


def test_labels_for_people_are_read_back() -> None:
    """Readable labels come back as they were given, without what the spawner adds."""
    written = {**readable_labels({"user": "Zoë"}), "perijove.org/kind": "volume", "other": "x"}

    assert read_labels(written, {"perijove.org/kind"}) == {"user": "Zoë"}
