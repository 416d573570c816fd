"""``perijove config`` and the program's own help, as run by a shell."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from perijove.cli.sample import sample_text
from perijove.services.offers import PolicySection, ProfileSection
from perijove.settings import load, plugin
from tests.integration.cli.programs import answer, perijove, refusal

GOOD = "[hub]\ntitle = 'Here'\n[auth.demo]\npassword = 'fixed:open-sesame'\n"
HEAVY = ("sqlalchemy", "pydantic", "starlette", "uvicorn", "msgspec", "alembic")


def test_help_is_quick_because_it_loads_nothing() -> None:
    """A list of commands needs neither the database nor the web."""
    done = perijove("--help", environ={"PYTHONPROFILEIMPORTTIME": "1"})

    assert done.returncode == 0
    for command in ("run", "hub", "proxy", "config", "user", "token", "db"):
        assert re.search(rf"\b{command}\b", done.stdout)
    assert "Exit codes: 0" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert loaded & set(HEAVY) == set()


def test_the_version_is_said() -> None:
    """What a report of a fault needs first."""
    done = perijove("--version")

    assert re.fullmatch(r"perijove \d+\.\d+\S*\n", done.stdout)


def test_an_unknown_command_is_wrong_usage() -> None:
    """Exit code 2 says that trying again is useless."""
    assert "No such command" in refusal("rnu", code=2)


def test_a_good_file_is_ok(tmp_path: Path) -> None:
    """Exit code 0, and a word."""
    file = tmp_path / "perijove.toml"
    file.write_text(GOOD)

    assert perijove("config", "check", "--config", file).stdout == "ok\n"
    assert answer("config", "check", "--config", file) == {"ok": True, "faults": []}


def test_a_bad_file_is_refused_with_all_its_faults(tmp_path: Path) -> None:
    """Exit code 2; the same lines for people and for programs."""
    file = tmp_path / "perijove.toml"
    file.write_text("[hub]\nbnid = '[red]'\n[spawners.local]\ncomand = []\n")

    said = refusal("config", "check", "--config", file, code=2)
    assert "hub.bnid: unknown key; did you mean 'bind'?" in said
    assert "spawners.local.comand: unknown key; did you mean 'command'?" in said

    done = perijove("config", "check", "--config", file, "--json")
    assert done.returncode == 2
    found = json.loads(done.stdout)
    assert not found["ok"]
    assert len(found["faults"]) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[hub]\nroles = [{ name = 'help', scopes = ['zork'] }]", "there is no scope 'zork'"),
        ("[hub]\nadmins = ['a/b']", "admins"),
        ("[[profiles]]\nname = 'a'\n[[profiles]]\nname = 'a'", "given twice"),
        ("[[profiles]]\nname = 'a'\nspawner = 'slurm'", "no spawner 'slurm'"),
    ],
)
def test_check_finds_what_a_start_would_find(tmp_path: Path, text: str, says: str) -> None:
    """Not only the form is checked: roles, names and profiles are too."""
    file = tmp_path / "perijove.toml"
    file.write_text(text)

    assert says in refusal("config", "check", "--config", file, code=2)


def test_show_says_where_each_value_came_from(tmp_path: Path) -> None:
    """The file, the environment, or the default."""
    file = tmp_path / "perijove.toml"
    file.write_text(GOOD)
    environ = {"PERIJOVE__HUB__FOOTER": "there", "PERIJOVE_CONFIG": str(file)}
    lines = perijove("config", "show", environ=environ).stdout.splitlines()

    assert f'hub.title = "Here"  # {file}' in lines
    assert 'hub.footer = "there"  # PERIJOVE__HUB__FOOTER' in lines
    assert 'hub.bind = "127.0.0.1:8000"  # default' in lines
    assert 'hub.session_lifetime = "14 d"  # default' in lines


def test_show_masks_secrets(tmp_path: Path) -> None:
    """Nothing that opens a door is printed, neither for people nor for programs."""
    file = tmp_path / "perijove.toml"
    file.write_text(
        "[hub]\ndatabase = 'postgresql://hub:open-sesame@db/hub'\n"
        "tokens = [{ name = 'x', user = 'ann', token = 'open-sesame' }]\n"
        "[auth.demo]\npassword = 'fixed:open-sesame'\n"
        "[spawners.local]\nenvironment = { MY_API_KEY = 'open-sesame' }\n"
        "[[profiles]]\nname = 'a'\nenvironment = { DB_PASSWORD = 'open-sesame' }\n"
    )

    for form in ([], ["--json"]):
        shown = perijove("config", "show", "--config", file, *form).stdout
        assert shown.count("●●●") == 5
        assert "sesame" not in shown


def test_show_is_json_for_programs(tmp_path: Path) -> None:
    """Values as a tree, and a source for each."""
    file = tmp_path / "perijove.toml"
    file.write_text(GOOD)
    shown = answer("config", "show", "--config", file)

    assert shown["values"]["hub"]["title"] == "Here"
    assert shown["origins"]["hub.title"] == str(file)
    assert shown["origins"]["hub.bind"] == "default"


def test_the_sample_is_printed() -> None:
    """The command prints what the function makes."""
    assert perijove("config", "sample").stdout == sample_text()


def test_the_sample_changes_nothing(tmp_path: Path) -> None:
    """As it is printed, the sample is a file that says nothing but what holds anyway."""
    file = tmp_path / "perijove.toml"
    file.write_text(sample_text())

    assert load(file, {}) == load(None, {})


def test_the_sample_loads_when_everything_is_uncommented(tmp_path: Path) -> None:
    """Every key with its default or its example is one that the program takes."""
    text = re.sub(r"^#(?=[a-z\[])", "", sample_text(), flags=re.MULTILINE)
    file = tmp_path / "perijove.toml"
    file.write_text(text)
    loaded, default = load(file, {}), load(None, {})

    assert loaded.lifecycle == default.lifecycle
    assert loaded.hub.model_copy(update={"logo": None}) == default.hub
    assert loaded.auth["native"] == default.auth["native"]
    assert perijove("config", "check", "--config", file).returncode == 0


def test_the_sample_holds_every_key() -> None:
    """No section has a key that the sample keeps to itself."""
    tree = tomllib.loads(re.sub(r"^#(?=[a-z\[])", "", sample_text(), flags=re.MULTILINE))

    for name in ("hub", "proxy", "lifecycle"):
        assert tree[name].keys() == type(getattr(load(None, {}), name)).model_fields.keys()
    for group in ("auth", "spawners"):
        for name, values in tree[group].items():
            assert values.keys() == plugin(group, name).Settings.model_fields.keys()
    assert {"local", "null"} <= tree["spawners"].keys()
    assert tree["profiles"][0].keys() == ProfileSection.model_fields.keys()
    assert tree["policies"][0].keys() == PolicySection.model_fields.keys()
