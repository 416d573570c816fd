"""Profiles of other hubs, brought over by ``perijove import-profiles``."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from perijove.cli.app import app
from perijove.cli.importing.kubespawner import Importer
from perijove.cli.importing.report import Import
from perijove.cli.importing.toml import write
from perijove.domain.faults import InvalidOptions
from perijove.domain.options import Choice, apply
from perijove.domain.policy import evaluate
from perijove.domain.profile import Profile
from perijove.services.profiles import choices_in
from perijove.settings import load, plugin
from tests import beds

CORPUS = beds.ROOT / "tests/corpus/profiles"
SPAWNERS = """
[spawners.kubernetes]
kind = "kubernetes"
namespace = "hub"
"""


def run(*arguments: str, given_: str | None = None) -> Any:
    """Run the command."""
    return CliRunner().invoke(app, ["import-profiles", *arguments], input=given_)


def loaded(directory: Path, text: str, spawners: str = SPAWNERS) -> dict[str, Profile]:
    """Return the profiles of an output, as a hub with the right spawner would have them."""
    file = directory / "perijove.toml"
    file.write_text(spawners + text)
    tree = load(file, {})
    only = next(iter(tree.spawners))
    return {
        each.name: Profile.from_body(each.name, each.body(only, tree.images), revision=1)
        for each in tree.profiles
    }


def chosen(profile: Profile, **options: str) -> Choice:
    """Return what a client of KubeSpawner gets that says these options."""
    said = {
        name.replace("__", "--").replace("unlisted_", "unlisted-"): v for name, v in options.items()
    }
    return apply(profile, evaluate([], user="ann", groups=()), choices_in(profile, said))


def test_a_configuration_in_python_goes_over_without_being_run(tmp_path: Path) -> None:
    """What is literal goes over, what is code is named with its line, and nothing is executed."""
    marker = tmp_path / "ran"
    file = tmp_path / "jupyterhub_config.py"
    text = (CORPUS / "jupyterhub_config.py").read_text()
    file.write_text(text + f"\nopen({str(marker)!r}, 'w').close()\n")

    result = run(str(file), "--format", "kubespawner")

    assert not marker.exists()
    assert result.exit_code == 1
    said = [line.partition("profile_list")[2] for line in result.stderr.splitlines()]
    assert [line.partition(". ")[0] for line in said] == [
        "[1] (Choose your own).kubespawner_override.environment.WHO: it is made of the person's"
        " or the server's name",
        "[1] (Choose your own).kubespawner_override.lifecycle_hooks: there is no such setting here",
        "[1] (Choose your own).profile_options.resources.choices.2 cores: it is called 2-cores"
        " here",
        '[2] (Computed).kubespawner_override.image: this is code (line 82: os.environ["IMAGE"])',
    ]
    profiles = loaded(tmp_path, result.stdout)
    assert list(profiles) == ["choose", "small", "computed"]
    small = chosen(profiles["small"])
    assert (small.resources.cpu, small.resources.memory_bytes) == (1, 4 * 2**30)
    assert small.default_url == "/tree"
    assert small.platform == {"cpu_guarantee": "0.5", "memory_guarantee": str(2 * 2**30)}


def test_options_are_chosen_as_before(tmp_path: Path) -> None:
    """Scripts that sent options to KubeSpawner get the same from the imported profiles."""
    result = run(str(CORPUS / "jupyterhub_config.py"), "--format", "kubespawner")
    profile = loaded(tmp_path, result.stdout)["choose"]

    assert chosen(profile).image == "quay.io/site/astro:2"
    assert chosen(profile, image="base").image == "quay.io/site/base:1"
    assert chosen(profile, image__unlisted_choice="quay.io/a/b:1").image == "quay.io/a/b:1"
    gpu = chosen(profile, resources="gpu")
    assert (gpu.resources.cpu, gpu.resources.gpu) == (8, 1)
    assert gpu.platform["node_selector"] == {"node.kubernetes.io/pool": "gpu"}
    assert gpu.platform["volume_mounts"][0]["subPath"] == "home/{user}"
    with pytest.raises(InvalidOptions, match="Must be on quay"):
        chosen(profile, image__unlisted_choice="docker.io/a/b:1")


def test_the_values_of_a_chart_go_over(tmp_path: Path) -> None:
    """Wherever they stand in the file; each setting that is another one here is said."""
    result = run(str(CORPUS / "values.yaml"), "--spawner", "kubernetes")

    assert result.exit_code == 1
    assert [line.split(": ")[0].rpartition(".")[2] for line in result.stderr.splitlines()] == [
        "cmd",
        "cpu_guarantee",
        "validation_regex",
    ]
    profiles = loaded(tmp_path, result.stdout)
    assert chosen(profiles["teaching"]).image == "quay.io/site/teaching:3"
    research = chosen(profiles["research"], size__unlisted_choice="24G")
    assert (research.resources.cpu, research.resources.memory_bytes) == (2, 24 * 2**30)
    assert research.platform == {
        "memory_guarantee": str(2**30),  # of every server, says the chart
        "extra_resources": {"example.com/dongle": "1"},
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {
                            "matchExpressions": [
                                {"key": "pool", "operator": "In", "values": ["research"]}
                            ]
                        }
                    ]
                }
            }
        },
        "security": {"user": 2000},
    }


def places(said: str, head: str) -> list[str]:
    """Return where the differences are, below a place, and the beginning of why."""
    lines = [line.removeprefix(head) for line in said.splitlines() if line.startswith(head)]
    return [line.partition(". ")[0] for line in lines]


def test_a_large_hub_goes_over_exactly(tmp_path: Path) -> None:
    """Limits and guarantees are those that KubeSpawner gives, whatever is laid over what."""
    result = run(str(CORPUS / "research.yaml"), "--spawner", "kubernetes")

    assert result.stderr.startswith("hub.extraConfig.02-profiles: c.KubeSpawner.profile_list: it")
    options = "profile_options.share"
    assert places(result.stderr, "singleuser.profileList[0] (Shared: up to 4 CPU / 32 GB).") == [
        "description: there is HTML in it, which is left out",
        "allowed_groups: KubeSpawner has no such key: taken as `groups`, staff, site:students",
        "profile_options.image.choices.R & geo: it is called r-geo here",
        "profile_options.image.choices.R & geo.kubespawner_override.default_url: servers cannot"
        " open at '/rstudio'",
        f"{options}.choices.all.kubespawner_override.cpu_limit: it takes back what the profile"
        " says, which no choice can here",
        f"{options}.unlisted_choice.validation_regex: KubeSpawner matches the beginning of the"
        " text only",
    ]
    assert places(result.stderr, "singleuser.profileList[1] (Médium ✓).")[:2] == [
        "kubespawner_override.environment.OF: it is made of the person's or the server's name",
        "kubespawner_override.volumes: it is made of the person's or the server's name",
    ]
    assert "singleuser.profileList[2] (Medium): it is called medium-2 here" in result.stderr

    profiles = loaded(tmp_path, result.stdout)
    shared, medium = profiles["shared"], profiles["medium"]
    assert shared.description == {"en": "For most work, on a shared node. Files & kernels stay."}
    assert shared.groups == ("staff", "site:students")
    assert medium.storage is None
    base = str(int(24.2 * 2**30))
    for profile, share, cpu, memory, guarantees in (
        (shared, {}, 3.75, 1992701952, ("0.2", "1992701952")),
        (shared, {"share": "half"}, 4, 64 * 2**30, ("0.25", base)),
        (shared, {"share": "all"}, 4, 32 * 2**30, ("0.25", str(30 * 2**30))),
        (shared, {"share__unlisted_choice": "7G"}, 4, 7 * 2**30, ("0.25", "100 %")),
        (medium, {"share": "half"}, 2, 64 * 2**30, (None, str(2**30))),
        (medium, {"share": "all"}, 2, 8 * 2**30, (None, str(30 * 2**30))),
    ):
        found = chosen(profile, **share)
        assert (found.resources.cpu, found.resources.memory_bytes) == (cpu, memory), share
        keys = ("cpu_guarantee", "memory_guarantee")
        assert tuple(found.platform.get(key) for key in keys) == guarantees, share


def test_what_is_guaranteed_to_all_is_so_here(tmp_path: Path) -> None:
    """A limit is no guarantee where the configuration gives everybody another one."""
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(
        'c.KubeSpawner.mem_guarantee = "2G"\n'
        "c.KubeSpawner.profile_list = [\n"
        '    {"display_name": "a", "kubespawner_override": {"mem_limit": "8G"}},\n'
        '    {"display_name": "b", "kubespawner_override": {"cpu_limit": 1}},\n'
        "]\n"
    )
    result = run(str(file))

    assert (result.exit_code, result.stderr) == (0, "")
    profiles = loaded(tmp_path, result.stdout)
    assert chosen(profiles["a"]).platform == {"memory_guarantee": str(2 * 2**30)}
    assert chosen(profiles["b"]).platform == {}


def test_what_a_configuration_computes_goes_over_as_far_as_it_can(tmp_path: Path) -> None:
    """Texts, tables, lists and numbers are put together; what code changes later is code."""
    result = run(str(CORPUS / "computed_config.py"), "--format", "kubespawner")

    assert places(result.stderr, "c.KubeSpawner.profile_list") == [
        '[1].display_name: this is code (line 24: f"Silver ({TAG})")',
        "[1] (silver).default: this is code (line 24: bool(TAG))",
        "[2] (Common).kubespawner_override.cpu_limit: this is code (line 30: lambda spawner: 3)",
        "[2] (Common).kubespawner_override.environment.TAG: this is code"
        ' (line 3: os.environ.get("TAG", "latest"))',
        "[2] (Common).profile_options.image.choices.own.kubespawner_override.image: this is code"
        " (line 35: image_of)",
        "[2] (Common).profile_options.image.unlisted_choice.validation_regex: this is code"
        ' (line 38: "^" + TAG)',
        "[5]: it is made by code (line 9: for size, (cpu, memory) in SIZES.items():"
        ' looped.append({"di)',
        '[7]: it is made by code (line 15: changed[0]["kubespawner_override"] = {"cpu_limit": 64})',
        '[9]: it is made by code (line 48: c.KubeSpawner.profile_list[0]["slug"] = "bronze")',
    ]
    profiles = loaded(tmp_path, result.stdout)
    assert list(profiles) == [
        *("gold", "silver", "common", "added", "added-to", "changed", "appended"),
    ]
    common = chosen(profiles["common"])
    assert (common.image, common.resources.memory_bytes) == ("quay.io/site/base:1", 8 * 2**30)
    assert common.platform == {"security": {"user": 1000}}
    assert chosen(profiles["gold"]).resources.cpu == 4


def test_images_of_several_spawners_are_several_profiles(tmp_path: Path) -> None:
    """Each has its list, and what is written can be loaded."""
    result = run(str(CORPUS / "computed_config.py"), "--format", "dockerspawner")

    assert places(result.stderr, "c.DockerSpawner.allowed_images") == [
        "['R']: it is called r here",
        ': it is made by code (line 49: f"own {TAG}")',
        ": it is made by code (line 49: image_of)",
    ]
    profiles = loaded(tmp_path, result.stdout, '[spawners.docker]\nkind = "docker"\n')
    assert chosen(profiles["docker"]).image == "quay.io/site/r:4"
    assert chosen(profiles["docker-2"], image="quay.io/a/b:1").image == "quay.io/a/b:1"


PATTERNS = [
    ("^a$", "^a$"),
    ("^(a|b):.+$", "^(a|b):.+$"),
    ("[|]x$", "[|]x$"),
    (r"\|x.*", r"\|x.*"),
    ("a$|b", "(?:a$|b).*"),
    ("a", "(?:a).*"),
    (r"a\$", r"(?:a\$).*"),
]


@pytest.mark.parametrize(("pattern", "ours"), PATTERNS)
def test_what_may_be_written_is_what_could_be(tmp_path: Path, pattern: str, ours: str) -> None:
    """KubeSpawner matches the beginning of a text, of each alternative by itself; we all of it."""
    other = {
        "enabled": True,
        "validation_regex": pattern,
        "kubespawner_override": {"image": "{value}"},
    }
    entry = {"display_name": "x", "profile_options": {"image": {"unlisted_choice": other}}}
    result = run("-", given_=json.dumps([entry]))
    (section,) = tomllib.loads(result.stdout)["profiles"]
    assert section["fields"]["image"]["free"]["pattern"] == ours
    assert result.exit_code == (0 if pattern == ours else 1)
    assert list(loaded(tmp_path, result.stdout)) == ["x"]


def test_the_same_list_is_the_same_in_every_form(tmp_path: Path) -> None:
    """A bare list, a table by slug, JSON on standard input: one output, and nothing to say."""
    one = {"display_name": "One", "slug": "one", "kubespawner_override": {"cpu_limit": 1}}
    listed = run("-", given_=json.dumps([one]))
    by_slug = run("-", given_=json.dumps({"profileList": {"one": {**one}}}))
    python = tmp_path / "x.py"
    python.write_text(f"c.KubeSpawner.profile_list = {[one]!r}\n")
    in_python = run(str(python))

    outputs = {each.stdout for each in (listed, by_slug, in_python)}
    assert outputs == {'[[profiles]]\nname = "one"\ntitle = "One"\ncpu = 1\n'}
    assert [each.exit_code for each in (listed, by_slug, in_python)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("allowed", "image", "given_name"),
    [
        ({"base": "quay.io/jupyter/base:1", "r": "quay.io/jupyter/r:1"}, "r", "r"),
        (["quay.io/jupyter/base:1", "quay.io/jupyter/r:1"], "quay.io/jupyter/r:1", "r"),
    ],
)
def test_images_of_dockerspawner_go_over(
    tmp_path: Path, allowed: object, image: str, given_name: str
) -> None:
    """By name or by reference, as its clients say them."""
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(f"c.DockerSpawner.allowed_images = {allowed!r}\n")
    result = run(str(file))

    assert (result.exit_code, result.stderr) == (0, "")
    profile = loaded(tmp_path, result.stdout, '[spawners.docker]\nkind = "docker"\n')["docker"]
    assert chosen(profile).image == "quay.io/jupyter/base:1"
    choice = chosen(profile, image=image)
    assert (choice.image, choice.options["image"]) == ("quay.io/jupyter/r:1", given_name)


def test_an_option_of_images_with_other_keys_stays_one_of_its_own(tmp_path: Path) -> None:
    """Two profiles call different images alike: each keeps its keys, the catalogue has both."""
    entries = [
        {
            "display_name": name,
            "profile_options": {
                "image": {
                    "choices": {
                        "latest": {"kubespawner_override": {"image": f"quay.io/{name}:1"}},
                        "old": {"kubespawner_override": {"image": f"quay.io/{name}:0"}},
                    }
                }
            },
        }
        for name in ("a", "b")
    ]
    result = run("-", given_=json.dumps(entries))

    assert result.exit_code == 0
    profiles = loaded(tmp_path, result.stdout)
    assert chosen(profiles["a"], image="latest").image == "quay.io/a:1"
    assert chosen(profiles["b"], image="latest").image == "quay.io/b:1"
    assert chosen(profiles["b"], image="old").image == "quay.io/b:0"


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        ("c.X.y = 1", "x.py", "there is no profile_list"),
        ("def (", "x.py", "not Python"),
        ("{", "x.json", "not JSON"),
        ("a: [", "x.yaml", "not YAML"),
        ("[]", "x.json", "there is no profile_list"),
    ],
)
def test_a_file_without_profiles_is_an_error(
    tmp_path: Path, text: str, name: str, words: str
) -> None:
    """Wrong usage is told from an import with differences by its exit code."""
    file = tmp_path / name
    file.write_text(text)
    result = run(str(file))

    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_a_file_that_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    """What is wrong with the file is said in words, without what Python says around them."""
    missing = str(tmp_path / "values.yaml")
    for name, words in ((missing, "No such file or directory"), (str(tmp_path), "Is a directory")):
        result = run(name)
        assert (result.exit_code, result.stderr) == (2, f"error: {name}: {words}\n")


def test_a_list_made_by_code_is_said(tmp_path: Path) -> None:
    """A function, a loop or an addition that cannot be read is one difference each."""
    text = (
        "c.KubeSpawner.profile_list = make()\nfor x in y:\n    c.KubeSpawner.profile_list += [x]\n"
    )
    file = tmp_path / "jupyterhub_config.py"
    file.write_text(text)
    result = run(str(file))

    assert (result.exit_code, result.stdout) == (1, "")
    assert "line 1: make()" in result.stderr
    assert "line 2: for x in y" in result.stderr


KEYS = [
    *("display_name", "slug", "kubespawner_override", "profile_options", "choices", "image"),
    *("cpu_limit", "mem_limit", "mem_guarantee", "unlisted_choice", "enabled", "tolerations"),
    *("environment", "volumes", "extra_resource_limits", "default_url", "x y"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON)
def test_whatever_is_in_the_list_the_output_is_a_configuration(
    tmp_path_factory: pytest.TempPathFactory, tree: object
) -> None:
    """Nothing is a traceback, and what is written can be loaded."""
    result, overrides = Import(), plugin("spawners", "kubernetes").Overrides
    importer = Importer(result, spawner=None, overrides=overrides)
    importer.add([{"display_name": "x", **_table(tree)}], "")
    text = write(result.images, result.profiles)
    profiles = loaded(tmp_path_factory.getbasetemp(), text)
    assert len(profiles) == len(result.profiles)


def _table(tree: object) -> dict[str, Any]:
    return tree if isinstance(tree, dict) else {"kubespawner_override": tree}
