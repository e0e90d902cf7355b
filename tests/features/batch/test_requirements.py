"""What a requirements.txt may ask for: names of packages, and nothing that reaches further."""

import io
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leadline.features.batch import requirements
from leadline.features.batch.archive import judge
from leadline.features.batch.requirements import read
from leadline_protocol.errors import ErrorCode, Refused

SHA = "0123456789abcdef" * 4


def refusal(text: str | bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        read(text if isinstance(text, bytes) else text.encode())
    assert caught.value.code is ErrorCode.BAD_ARCHIVE
    return caught.value


def test_packages_are_read_whatever_their_lines_look_like() -> None:
    text = f"""
        # what it needs
        Requests>=2.31,<3   # of the web
        python_dateutil == 2.9.0
        uvicorn [standard]; python_version >= "3.9"
        pinned==1.0 \\
            --hash=sha256:{SHA} \\
            --hash sha256:{SHA[::-1]}
        wheel-of-ours @ https://203.0.113.5/wheels/wheel_of_ours-1-py3-none-any.whl
        requests<3,>=2.31
    """
    assert read(text.encode()) == (
        "requests<3,>=2.31",
        "python-dateutil==2.9.0",
        'uvicorn[standard]; python_version >= "3.9"',
        f"pinned==1.0 --hash=sha256:{SHA} --hash=sha256:{SHA[::-1]}",
        "wheel-of-ours @ https://203.0.113.5/wheels/wheel_of_ours-1-py3-none-any.whl",
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_as_editors_write_it(encoding: str) -> None:
    assert read("a\r\nb\r\n# ü".encode(encoding)) == ("a", "b")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing", "\\\n\\\n"])
def test_a_file_may_ask_for_nothing(text: str) -> None:
    assert read(text.encode()) == ()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-e .", "lies beside main.py"),
        ("--editable=git+https://x.example/y", "lies beside main.py"),
        ("-r more.txt", "in this one file"),
        ("-c pins.txt", "in this one file"),
        ("--index-url https://user:secret@x.example/simple", "index that the operator has configured"),
        ("--extra-index-url=https://x.example", "index that the operator has configured"),
        ("--find-links /var/lib", "index that the operator has configured"),
        ("--trusted-host x.example", "index that the operator has configured"),
        ("--no-binary :all:", "names a package"),
        ("--pre", "names a package"),
        ("a --global-option=x", "names a package"),
        ("a --config-settings x=y", "names a package"),
        ("a --hash=md5:00", "--hash is not taken"),
        ("./here", "folder or file"),
        ("../there", "folder or file"),
        ("/etc", "folder or file"),
        ("~/x", "folder or file"),
        ("C:\\x", "folder or file"),
        ("file:///etc", "folder or file"),
        ("a @ file:///etc/a.whl", "link may only"),
        ("a @ http://x.example/a.whl", "link may only"),
        ("a @ git+https://x.example/a.whl", "link may only"),
        ("a @ https://x.example/a.tar.gz", "link may only"),
        ("a @ https:///a.whl", "link may only"),
        ("a @ https://[x/a.whl", "link may only"),
        ("a @ https://x.example/${HOME}/a.whl", "link may only"),
        ("a @ /etc/a.whl", "link may only"),
        ("https://x.example/a.whl", "names no package"),
        ("pip-23.0.1-py3-none-any.whl", "is a file"),
        ("a.tar.gz", "is a file"),
        ("a b", "names no package"),
        ("a==", "names no package"),
        ("a; os_name == 'no end", "names no package"),
        ("a" * 1_001, "1,000 characters"),
    ],
)
def test_a_line_that_names_no_package_is_refused_with_its_number(line: str, why: str) -> None:
    refused = refusal(f"# first\nfine==1\n\n{line}\n")
    assert why in refused.message
    assert refused.message.startswith("requirements.txt, line 4: ")
    assert refused.at == "requirements.txt:4"
    assert "secret" not in refused.message


def test_a_joined_line_is_told_by_where_it_begins() -> None:
    assert refusal("fine \\\n ==1\nb \\\n --pre\n").at == "requirements.txt:3"


def test_a_marker_may_be_nested_as_deeply_as_it_likes() -> None:
    with suppress(Refused):
        read(b"a; " + b"(" * 485 + b"os_name == 'x'" + b")" * 485)


def test_what_is_no_text_or_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "UTF-8" in refusal(b"a\n\xff\xfa").message
    assert "1,048,576 bytes" in refusal(b"#" * (requirements.BYTES_MAX + 1)).message
    monkeypatch.setattr(requirements, "PACKAGES_MAX", 2)
    assert read(b"a\nb\na\n") == ("a", "b")
    assert refusal("a\nb\nc\n").at == "requirements.txt:3"


@given(st.text() | st.text(alphabet="-aeirfx.@:/ \\#\n=[];~$'\"0"))
def test_what_is_taken_is_read_the_same_again_and_is_no_option(text: str) -> None:
    try:
        found = read(text.encode(errors="replace"))
    except Refused:
        return
    assert read("\n".join(found).encode()) == found
    assert not any(line.startswith(("-", ".", "/")) or "\n" in line for line in found)


def test_it_is_judged_with_the_code_that_it_is_for() -> None:
    def zipped(text: str) -> io.BytesIO:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as it:
            it.writestr("main.py", "def main(): pass")
            it.writestr(requirements.REQUIREMENTS, text)
        return out

    assert judge(zipped("requests")).requirements
    assert not judge(zipped("# nothing yet")).requirements
    with pytest.raises(Refused, match="line 2"):
        judge(zipped("requests\n-e ."))
