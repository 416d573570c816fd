"""What the configuration says of profiles, images and platforms, taken together."""

from pathlib import Path

import pytest

from perijove.domain.errors import ConfigError
from perijove.settings import Settings, load

CONTAINERS = """
[spawners.docker]
kind = "docker"
image = "quay.io/site/base:1"

[spawners.here]
kind = "local"

[images.astro]
image = "quay.io/site/astro:1"
"""
HEAD = '[[profiles]]\nname = "x"\n'


def read(directory: Path, text: str) -> Settings:
    """Load the configuration above with this added."""
    file = directory / "perijove.toml"
    file.write_text(CONTAINERS + text)
    return load(file, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'spawner = "docker"\nimage = "astor"',
            "profiles.0.image: profile 'x': there is no section [images.astor];"
            " did you mean 'astro'?",
        ),
        (
            'spawner = "here"\nimage = "astro"',
            "profiles.0.image: profile 'x': spawner 'here' starts no containers",
        ),
        (
            'spawner = "here"\n[profiles.fields.image]',
            "profiles.0.fields.image: profile 'x': spawner 'here' starts no containers",
        ),
        (
            'spawner = "here"\n[profiles.choices.a.options.b]\nset = { image = "astro" }',
            "profiles.0.choices.a.options.b.set.image: profile 'x': spawner 'here' starts",
        ),
        (
            'spawner = "docker"\n[profiles.choices.a.options.b]\nset = { image = "b" }',
            "profiles.0.choices.a.options.b.set.image: profile 'x': there is no section [images.b]",
        ),
        (
            'spawner = "here"\n[profiles.platform]\nnetwork = "x"',
            "profiles.0.platform: profile 'x': spawner 'here' takes nothing of its own kind",
        ),
        (
            'spawner = "docker"\n[profiles.platform]\nnetwrok = "x"',
            "profiles.0.platform.netwrok: unknown key; did you mean 'network'?",
        ),
        (
            'spawner = "docker"\n[profiles.choices.a.options.b]\n'
            "set = { platform = { shm_size = 1 } }",
            "profiles.0.choices.a.options.b.set.platform.shm_size: must be greater than",
        ),
    ],
)
def test_slips_between_sections_are_named(tmp_path: Path, text: str, words: str) -> None:
    """A profile that its spawner could not start is said with the key that is to blame."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, HEAD + text)
    assert words in str(caught.value)


def test_without_a_catalogue_there_must_be_something_to_write(tmp_path: Path) -> None:
    """A field of images with nothing to choose from is a mistake, unless people may write one."""
    file = tmp_path / "perijove.toml"
    empty = (
        '[spawners.docker]\nkind = "docker"\n[[profiles]]\nname = "x"\n[profiles.fields.image]\n'
    )
    file.write_text(empty)
    with pytest.raises(ConfigError, match="there is no image to choose from"):
        load(file, {})
    file.write_text(empty + 'free = { pattern = "quay.io/.+" }\n')
    assert load(file, {}).profiles[0].fields.image is not None


def test_a_profile_keeps_the_images_it_speaks_of(tmp_path: Path) -> None:
    """The stored revision has their references: another tag in the file is another revision."""
    text = HEAD + 'spawner = "docker"\nimage = "astro"\n[profiles.platform]\nnetwork = "course"\n'
    settings = read(tmp_path, text)
    body = settings.profiles[0].body("docker", settings.images)
    assert [image["image"] for image in body["images"]] == ["quay.io/site/astro:1"]
    assert body["platform"] == {"network": "course"}
