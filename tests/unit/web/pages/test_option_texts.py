"""How options of schedulers are written for people."""

import pytest

from perijove.domain.faults import Fault
from perijove.domain.offer import Objection
from perijove.web.texts import Catalogues
from perijove.web.texts.options import fault_said, gpu_text

ALL = Catalogues()


@pytest.mark.parametrize(
    ("count", "kind", "english", "french"),
    [
        (0, "", "None", "Aucun"),
        (1, "", "1 × GPU", "1 × GPU"),
        (2, "a100", "2 × A100", "2 × A100"),
        (1, "nvidia_a100_1g.5gb", "1 × NVIDIA A100 1g.5gb", "1 × NVIDIA A100 1g.5gb"),
        (3, "shard:t4", "3 × T4 share", "3 × part de T4"),
        (3, "shard", "3 × GPU share", "3 × part de GPU"),
    ],
)
def test_gpus_are_written_as_people_know_them(
    count: int, kind: str, english: str, french: str
) -> None:
    """A scheduler's word for a GPU becomes the name on its box."""
    assert gpu_text(ALL.get("en"), count, kind) == english
    assert gpu_text(ALL.get("fr"), count, kind) == french


def test_an_objection_is_explained_and_quoted() -> None:
    """A reason of the catalogue is said in the person's language, the scheduler's words behind."""
    objection = Objection(field="qos", code="invalid-qos", words="Invalid qos specification")
    said = fault_said(ALL.get("fr"), Fault.of_objection(objection))
    assert "Invalid qos specification" in said
    assert not said.startswith("Invalid")
    strange = Objection(field="", code="of-a-newer-hub", words="Nope")
    assert "Nope" in fault_said(ALL.get("en"), Fault.of_objection(strange))
