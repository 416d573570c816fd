"""``perijove doctor``, where it cannot begin."""

from pathlib import Path

from tests.integration.cli.programs import refusal


def test_what_has_no_nodes_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    """Who asks for the wrong section reads that, not what a right one would need besides."""
    file, data = tmp_path / "perijove.toml", tmp_path / "data"
    file.write_text("[spawners.here]\nkind = 'local'\n")
    options = ("--config", str(file), "--data-dir", str(data))

    assert "of kind local: only slurm" in refusal("doctor", "--spawner", "here", *options, code=2)
    assert "there are: here" in refusal("doctor", "--spawner", "there", *options, code=2)
    assert not data.exists()
