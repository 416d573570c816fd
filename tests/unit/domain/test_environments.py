"""What can be an environment's name, what can be in it, and what of it somebody else may build."""

import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from perijove.agent import environments as keeper
from perijove.domain.environments import (
    LONGEST_LOCK,
    MOST_PACKAGES,
    NAME_LENGTH,
    check_from_index,
    check_lock,
    check_name,
    check_packages,
    printable,
)
from perijove.domain.errors import Invalid

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,20}", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}", fullmatch=True)


def taken(check: Callable[[], Any], *codes: str) -> Any:
    """Return what is taken, or nothing where it is refused for one of these reasons."""
    try:
        return check()
    except Invalid as refused:
        if refused.code in codes and all(
            str(each).isprintable() for each in refused.params.values()
        ):
            return None
        raise


@given(st.text(max_size=60) | st.from_regex(r"[a-z0-9_-]{1,45}", fullmatch=True))
def test_a_name_is_a_folder_and_a_kernel(name: str) -> None:
    """What is taken leads nowhere else, and is a name for the session's program as well."""
    if taken(lambda: check_name(name), "environment-name") is not None:
        assert set(name) <= set(string.ascii_lowercase + string.digits + "-_")
        assert len(name) <= NAME_LENGTH
        assert keeper.ENVIRONMENT_NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "-x", "x-", "Été", "python3", "a\n"])
def test_what_is_no_name(name: str) -> None:
    """Paths, options, other alphabets and the kernel that every session has are refused."""
    with pytest.raises(Invalid):
        check_name(name)


@given(st.lists(st.text(max_size=80), max_size=8))
def test_only_requirements_are_asked_for(lines: list[str]) -> None:
    """Whatever is typed: what is taken is a requirement in one printable line, and no option."""
    for line in taken(lambda: check_packages(lines), "environment-package") or ():
        assert line.isprintable()
        assert not line.startswith("-")
        Requirement(line)


@pytest.mark.parametrize(
    "line",
    [
        "--index-url=https://evil.test",
        "-r /etc/passwd",
        "-e .",
        "./here",
        "numpy; rm -rf",
        'numpy; extra == "a\x00b"',
        'numpy; extra == "a\x1b[31mb"',
        "x" * 301,
    ],
)
def test_options_and_paths_are_no_packages(line: str) -> None:
    """Nothing reaches pip but requirements, nor the database what it cannot keep."""
    with pytest.raises(Invalid, match="is not a package"):
        check_packages([line])


def test_a_package_is_asked_for_once() -> None:
    """The later of two lines counts, unless they are for different systems; remarks are dropped."""
    lines = ["# all of it", "Num_Py>=1,<2", "num.py >= 2  # newer", "", 'numpy-x; os_name == "nt"']
    assert check_packages(lines) == ["num.py>=2", 'numpy-x; os_name == "nt"']
    two = ['a<2; python_version < "3.9"', 'a>2; python_version >= "3.9"']
    assert check_packages(two) == two
    with pytest.raises(Invalid, match="at most"):
        check_packages(f"p{n}" for n in range(MOST_PACKAGES + 1))


@given(st.lists(st.tuples(NAMES, VERSIONS), max_size=8))
def test_exact_versions_are_a_lock(pairs: list[tuple[str, str]]) -> None:
    """What pip writes down is taken as it is."""
    text = "".join(f"{name}=={version}\n" for name, version in pairs)
    assert check_lock(text) == text
    assert check_lock(f"# coding: utf-7\n \n{text}  # the end") == text
    check_from_index(text, [])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("numpy>=2\n", "environment-not-exact"),
        ("numpy==2,<3\n", "environment-not-exact"),
        ("numpy\n", "environment-not-exact"),
        ("--index-url https://evil.test\nnumpy==2\n", "environment-package"),
        ("numpy==2\r--index-url https://evil.test\n", "environment-package"),
        ("numpy==2\x0b--index-url https://evil.test\n", "environment-package"),
        ("numpy==2\u2028--index-url https://evil.test\n", "environment-package"),
        ("numpy==2\n# \u2028--index-url https://evil.test\n", "environment-package"),
        ("numpy==2\n# \r-r /etc/passwd\n", "environment-package"),
        ("#" * (LONGEST_LOCK + 1), "environment-lock"),
    ],
)
def test_what_is_no_lock(text: str, code: str) -> None:
    """Ranges and options are refused, also behind what another program takes for a new line."""
    with pytest.raises(Invalid) as refused:
        check_lock(text)
    assert refused.value.code == code


def test_hub_and_keeper_agree_on_the_longest_lock() -> None:
    """What the keeper sends the hub takes: the keeper is delivered without the hub's code."""
    assert keeper.LONGEST_LOCK == LONGEST_LOCK


@pytest.mark.parametrize("url", ["https://evil.test/x.whl", "file:///home/bob/x.whl"])
def test_what_lies_with_somebody_is_not_shared(url: str) -> None:
    """A file or an address is one's own business, and nobody else's."""
    line = f"x @ {url}"
    assert check_lock(line) == f"{line}\n"
    for lock, packages in ((line, []), ("", [line])):
        with pytest.raises(Invalid) as refused:
            check_from_index(lock, packages)
        assert refused.value.code == "environment-elsewhere"


@given(st.text(alphabet=st.characters() | st.sampled_from("\x00\x1b[0m\n\t")))
def test_words_of_a_program_are_for_the_eye(text: str) -> None:
    """No control characters, nothing that a database cannot keep, no colours."""
    shown = printable(text)
    assert all(each.isprintable() or each in "\n\t" for each in shown)
    shown.encode()
    assert printable("\x1b[1;31mno\x1b[0m \x00space\n") == "no space\n"
