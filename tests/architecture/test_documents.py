"""What the documents say is so: links lead somewhere, commands and examples are taken, lists are those of the code.

Prose outlives code, unless something fails when it does. What can be checked of a text is checked here against the
thing itself: a command against the command line, an example against the decoder, the compiler or the configuration, a
path against the repository, a diagram against the table that it draws.
"""

import ast
import csv
import itertools
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from datetime import UTC
from io import StringIO
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree as ET

import msgspec
import pytest
from msgspec import Struct

from leadline import config
from leadline.cli.app import app
from leadline.core.lifecycle import TRANSITIONS
from leadline.core.quota.days import day_of
from leadline.core.quota.ledger import BatchJobId, Ledger, failure
from leadline.core.quota.quotas import MINUTE_MS, Quotas
from leadline.features.batch.archive import takes_event
from leadline.features.outreach import bounce_guard, templates
from leadline.features.outreach.model import REASONS, Reason
from leadline.features.tables import ingest, lead_files
from leadline.features.tables.columns import ColumnType, declared_columns
from leadline.features.tables.expressions import DOCUMENTATION, compile_expression, compiler, grammar
from leadline.features.tables.provider_modules import preset_names, read_module
from leadline.features.tables.reading import Row
from leadline.features.tables.templates import parse_prompt
from leadline_protocol.codec import RequestDecoder
from leadline_protocol.errors import ErrorCode, JobReason, LeadReason, Refused
from leadline_protocol.ids import Instant, JobId
from leadline_protocol.messages import (
    CONTROL_OPERATIONS,
    IMPORT_ROWS,
    SUBMISSION_TYPES,
    Batch,
    Chain,
    ContactEvent,
    Enrich,
    EnrichStep,
    Formula,
    FormulaStep,
    Submission,
)
from tests.architecture.repository import ROOT, tracked_files

README = ROOT / "README.md"
ARCHITECTURE = ROOT / "daemon" / "ARCHITECTURE.md"
CHANGELOG = ROOT / "CHANGELOG.md"
TABLES, BATCH, OUTREACH, HTTP, PROVIDERS, PYTHON_MODULES, OPERATIONS = (
    ROOT / "daemon" / "docs" / f"{name}.md"
    for name in ("tables", "batch", "outreach", "http", "providers", "python-modules", "operations")
)
GUIDES = (README, TABLES, BATCH, OUTREACH, HTTP, PROVIDERS, PYTHON_MODULES, OPERATIONS)
DOCUMENTS = (*GUIDES, ARCHITECTURE)

EVERYDAY_PROGRAMS = {"curl", "echo", "export", "install", "pg_dump", "printf", "psql", "python3", "systemctl", "tar"}
"""What commands in the guides may use besides Leadline: every Linux has them, or the text says where they come from."""

ENRICH = (Enrich, EnrichStep)
FORMULA = (Formula, FormulaStep)

decoder = RequestDecoder(SUBMISSION_TYPES, CONTROL_OPERATIONS)


def names_of(paths: tuple[Path, ...]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a document in a language; the language may have a second word, such as `toml config`."""
    return re.findall(rf"^```{language}\n(.*?)^```", read(path), re.DOTALL | re.MULTILINE)


def prose(path: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", read(path), flags=re.DOTALL | re.MULTILINE)


def inline_code(path: Path) -> list[str]:
    return re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", prose(path))


def marked(path: Path, name: str) -> str:
    """What stands between `<!-- name: begin -->` and `<!-- name: end -->`."""
    found = re.search(rf"<!-- {name}: begin -->\n(.*?)<!-- {name}: end -->", read(path), re.DOTALL)
    assert found is not None, f"{path} has no part {name}"
    return found[1]


def rows(table: str) -> list[list[str]]:
    """The cells of a table, without its heading."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# Links ----------------------------------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.needs("git")
def test_every_link_leads_to_something_that_is_in_the_repository() -> None:
    known = {*tracked_files(), *(parent for file in tracked_files() for parent in file.parents)}
    broken = []
    for document in (path for path in tracked_files() if path.suffix == ".md"):
        path = ROOT / document
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
            if re.match(r"[a-z]+:", target):
                continue
            place, _, anchor = target.partition("#")
            file = (path.parent / place).resolve() if place else path
            if file.relative_to(ROOT) not in known or (anchor and anchor not in anchors(file)):
                broken.append(f"{document}: {target}")
    assert broken == []


@pytest.mark.needs("git")
@pytest.mark.parametrize("name", names_of(DOCUMENTS))
def test_every_file_that_is_named_exists(name: str) -> None:
    known = [str(path) for path in tracked_files()]
    gone = []
    for code in inline_code(ROOT / name):
        is_file = re.fullmatch(r"[\w./-]+\.(py|sql|md|json)", code) and code not in EXAMPLE_FILES
        if is_file and not any(path == code or path.endswith("/" + code) for path in known):
            gone.append(code)
    assert gone == []


def test_the_picture_is_small_and_loads_nothing_from_elsewhere() -> None:
    picture = ROOT / "daemon" / "docs" / "top.svg"
    ET.parse(picture)
    assert picture.stat().st_size < 50_000
    assert [place for place in re.findall(r"url\(([^)]+)\)|href=", read(picture)) if not place.startswith("#")] == []


EXAMPLE_FILES = {"stand_in.py"}
"""Files that a guide has its reader write."""


# Commands -------------------------------------------------------------------------------------------------------------


def commands(path: Path) -> Iterator[list[str]]:
    """Every command in the blocks of a guide, as its words; a pipe is several."""
    for block in blocks(path, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
            lexer.whitespace_split = True
            command: list[str] = []
            for word in lexer:
                if set(word) <= set("|&;"):
                    yield command
                    command = []
                else:
                    command.append(word)
            if command:
                yield command


def check_leadline(words: list[str]) -> None:
    """Read a command line as the command would, without carrying it out."""
    _, bound, _ = app.meta.parse_args(words, exit_on_error=False, print_error=False)
    app.parse_args(list(bound.args), exit_on_error=False, print_error=False)


def check_script(words: list[str]) -> None:
    script = ROOT / words[0]
    assert script.is_file(), f"there is no {words[0]}"
    usage = "\n".join(line for line in read(script).splitlines()[:30] if line.startswith("#"))
    for option in words[1:]:
        assert not option.startswith("-") or option in usage, f"{words[0]} has no {option}"


@pytest.mark.parametrize("name", names_of(GUIDES))
def test_every_command_in_a_block_is_one(name: str) -> None:
    seen = 0
    for words in commands(ROOT / name):
        seen += 1
        if words[0] in {"leadline", "scripts/leadline"}:
            check_leadline(words[1:])
        elif words[0].startswith("scripts/"):
            check_script(words)
        else:
            assert words[0] in EVERYDAY_PROGRAMS, " ".join(words)
    assert seen


def check_mention(words: list[str]) -> None:
    """A sentence may name a command without its arguments; what it does name must be there."""
    command = app
    for word in words:
        if word not in command or command.default_command is not None:
            break
        command = command[word]
    assert command is not app, f"there is no command {' '.join(words)}"
    if command.default_command is None:
        return
    known = {option for argument in command.assemble_argument_collection() for option in argument.names}
    for word in words:
        option = word.partition("=")[0]
        assert not option.startswith("--") or option in known, f"{' '.join(words)}: there is no {option}"


@pytest.mark.parametrize("name", names_of(DOCUMENTS))
def test_every_command_named_in_a_sentence_is_one(name: str) -> None:
    for code in inline_code(ROOT / name):
        words = code.split()
        if words[0] in {"leadline", "scripts/leadline"} and len(words) > 1:
            check_mention(words[1:])
        elif words[0].startswith("scripts/"):
            check_script(words)


def test_a_wrong_command_would_be_found() -> None:
    for wrong in (["submitt", "-"], ["jobs", "--wait"], ["why"], ["pause", "everything"]):
        with pytest.raises(Exception, match=r".+"):
            check_leadline(wrong)
    for wrong in (["submitt"], ["jobs", "--wait"], ["stop", "queue"]):
        with pytest.raises(AssertionError):
            check_mention(wrong)


# Examples -------------------------------------------------------------------------------------------------------------


def submissions(path: Path) -> Iterator[Submission]:
    """Every submission that a guide shows: in JSON, in a command, and as the file of a chain."""
    texts = [line for block in blocks(path, "json") for line in block.splitlines()]
    texts += re.findall(r"echo '(\{.*\})'", "\n".join(blocks(path, "sh")))
    texts += [json.dumps({"kind": "chain", **tomllib.loads(block)}) for block in blocks(path, "toml chain")]
    for text in texts:
        if "kind" not in json.loads(text):
            continue  # a reply
        found = decoder.decode(text.encode())
        assert isinstance(found, Submission), f"{found}: {text}"
        yield found


@pytest.mark.parametrize("name", names_of((README, TABLES, PROVIDERS)))
def test_every_submission_is_taken(name: str) -> None:
    assert list(submissions(ROOT / name))


def columns_of_the_guide() -> dict[str, ColumnType]:
    """The columns of the table of tables.md: what an upload of its file makes, and what its jobs add."""
    plan = plan_of_the_guide()[0]
    types = {column.name: column.type for column in plan.columns}
    for submission in submissions(TABLES):
        for step in steps_of(submission):
            if isinstance(step, ENRICH + FORMULA):
                types = {column.name: column.type for column in declared_columns(step.into)} | types
    return types


def plan_of_the_guide() -> tuple[ingest.UploadPlan, list[Row]]:
    """How the file of tables.md becomes leads, and its rows."""
    (text,) = blocks(TABLES, "csv")
    header, *lines = csv.reader(StringIO(text))
    rows_read = [Row(number, number + 1, line) for number, line in enumerate(lines, 1)]
    return ingest.plan_upload(header, rows_read, (), mapping={}, declared=(), key=None), rows_read


def steps_of(submission: Submission) -> Iterator[object]:
    yield from submission.steps if isinstance(submission, Chain) else [submission]


def test_every_expression_of_the_guide_compiles_over_its_file() -> None:
    types = {**columns_of_the_guide(), "size": ColumnType.NUMBER}
    filters = re.findall(r"`([a-z_]+ (?:<>|>=) [^`]+)`", read(TABLES).replace("\n", " "))
    filters += [words[words.index("--where") + 1] for words in commands(TABLES) if "--where" in words]
    prompts = []
    formulas = []
    for submission in submissions(TABLES):
        for step in steps_of(submission):
            if isinstance(step, ENRICH + FORMULA) and step.where is not None:
                filters.append(step.where)
            if isinstance(step, ENRICH) and step.module == "ai_prompt":
                prompts.append(step.params["prompt"])
            if isinstance(step, FORMULA):
                formulas.append(step.expression)
    assert (len(filters), len(prompts), len(formulas)) == (6, 4, 1)
    for text in filters:
        compile_expression(text, types, field="where", wants=ColumnType.BOOLEAN)
    for text in formulas:
        compile_expression(text, types, field="expression", wants=ColumnType.NUMBER)
    for text in prompts:
        parse_prompt(text, types, field="params.prompt")


def test_the_refusal_that_the_guide_shows_is_the_one_that_comes() -> None:
    (shown,) = (json.loads(block)["error"] for block in blocks(TABLES, "json") if '"ok":false' in block)
    (formula,) = (each for each in submissions(TABLES) if isinstance(each, Formula))
    with pytest.raises(Refused) as refused:
        compile_expression(formula.expression.replace("::numeric", ""), columns_of_the_guide(), field="expression")
    told = refused.value
    assert (shown["code"], shown["message"], shown["at"]) == (told.code, told.message, told.at)


def test_the_rows_that_the_guide_says_are_refused_are_refused() -> None:
    plan, rows_read = plan_of_the_guide()
    judged = [plan.lead(row) for row in rows_read]
    kept, folded = ingest.fold([row for row in judged if isinstance(row, ingest.NewRow)], "skip")
    refused = {row.reason for row in judged if not isinstance(row, ingest.NewRow)}
    assert (len(kept), len(folded), refused) == (4, 1, {LeadReason.INVALID_EMAIL})


def test_the_list_of_functions_is_that_of_the_language() -> None:
    lines = "".join(f"{each}\n" for each in DOCUMENTATION.values())
    assert marked(TABLES, "functions") == f"```text\n{lines}```\n"


def test_every_sign_and_word_of_the_language_is_explained() -> None:
    section = re.search(r"^## Filters and formulas.*?<!-- functions", read(TABLES), re.DOTALL | re.MULTILINE)
    assert section is not None
    told = " ".join(re.findall(r"`([^`]+)`", section[0])).replace("\\|", "|").split()
    parts_of_calls = {"(", ")", ",", "from", "for", "as"}
    assert (grammar._SYMBOLS | grammar._KEYWORDS) - parts_of_calls - set(told) == set()


def test_the_bounds_of_the_language_are_those_of_the_code() -> None:
    sentence = re.search(r"What could grow without bound.*?\n\n", read(TABLES), re.DOTALL)
    assert sentence is not None
    numbers = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", sentence[0])]
    assert numbers == [
        grammar.CHARACTERS_MAX,
        compiler.NODES_MAX,
        grammar.DEPTH_MAX,
        compiler.PATTERN_CHARACTERS_MAX,
        compiler.PATTERN_WILDCARDS_MAX,
    ]
    assert f"the first {lead_files.SAMPLE_ROWS} rows" in read(TABLES)


def test_the_provider_guide_is_read_by_the_daemon(tmp_path: Path) -> None:
    modules = [read_module(text, file=PROVIDERS.name) for text in blocks(PROVIDERS, "toml module")]
    (tmp_path / "headcount.toml").write_text(blocks(PROVIDERS, "toml module")[0], encoding="utf-8")
    (tmp_path / "headcount.key").write_text("not-a-real-key", encoding="utf-8")
    for text in blocks(PROVIDERS, "toml config"):
        read_config = config.parse(text, tmp_path / "leadline.toml")
        for provider in read_config.providers.values():
            assert provider.module is not None or provider.preset in preset_names()
    (job,) = (each for each in submissions(PROVIDERS) if isinstance(each, Enrich))
    assert job.module == modules[0].name
    assert set(job.into) <= set(modules[0].outputs)
    (stand_in,) = blocks(PROVIDERS, "python")
    compile(stand_in, "stand_in.py", "exec")


def test_the_day_that_the_batch_guide_reckons_is_the_one_of_the_ledger() -> None:
    midnight = 1_700_006_400_000_000  # of a day in UTC
    quotas = Quotas(milliseconds_per_day_max=60 * MINUTE_MS)
    ledger, runs = Ledger(), itertools.count(1)
    run, timeout_ms = JobId(0), 0
    for at, timeout, takes, verdict, used in rows(marked(BATCH, "day")):
        hours, minutes = map(int, at.split(":"))
        now = Instant(midnight + (60 * hours + minutes) * MINUTE_MS * 1000)
        if timeout == "retry":
            cap_ms = ledger.retry(run, timeout_ms, now, quotas, UTC)
            assert re.match(rf"given {int(cap_ms or 0) // MINUTE_MS} instead of {timeout_ms // MINUTE_MS},", verdict)
        else:
            run, timeout_ms = JobId(next(runs)), int(timeout) * MINUTE_MS
            refused = ledger.admit(run, BatchJobId(run), timeout_ms, now, quotas, UTC)
            assert verdict.startswith("runs" if refused is None else "skipped"), verdict
            if refused is not None:
                continue
        attempt = ledger.record(run, int(takes) * MINUTE_MS)
        if timeout == "retry":
            told = failure(attempt, quotas, timed_out=True, retry_attempt=1, retries=1, retry_timeouts=False)
            assert f"`{told}`" in verdict
        assert ledger.usage(day_of(now, UTC)).recorded_ms == int(used) * MINUTE_MS


def test_the_plan_of_batch_jobs_is_told_whole_and_as_it_is() -> None:
    wanted = [
        (f"`{key.name}`", f"`{key.default}`", key.sentence)
        for key in config.limits()
        if key.name == "zone" or key.name.startswith("batch.")
    ]
    told = [(key, default.partition(" ")[0], sentence) for key, default, sentence in rows(marked(BATCH, "plan"))]
    assert told == wanted


def test_the_batch_guide_is_read_by_the_daemon(tmp_path: Path) -> None:
    (program,) = blocks(BATCH, "python")
    assert takes_event(program.encode())
    (tmp_path / "science" / "bin").mkdir(parents=True)
    (tmp_path / "science" / "bin" / "python3").touch()
    for text in blocks(BATCH, "toml config"):
        read_config = config.parse(text.replace("/opt/pythons", str(tmp_path)), tmp_path / "leadline.toml")
        assert read_config.plans["default"].batch.enabled
    assert any(isinstance(each, Batch) for each in scheduled(BATCH))


def fields_of(struct: type[Struct]) -> set[str]:
    """The fields of a row of an import, those of what is within it with a dot."""
    names = set()
    for field in msgspec.structs.fields(struct):
        names.add(field.name)
        inner = [each for each in flattened(field.type) if isinstance(each, type) and issubclass(each, Struct)]
        names |= {f"{field.name}.{name}" for each in inner for name in fields_of(each)}
    return names


def flattened(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from flattened(argument)


@pytest.mark.parametrize("row", IMPORT_ROWS, ids=lambda row: str(row.__struct_config__.tag))
def test_the_outreach_guide_tells_every_field_of_a_row_and_its_default(row: type[Struct]) -> None:
    part = str(row.__struct_config__.tag)
    told = {name.strip("`"): default for name, default, _ in rows(marked(OUTREACH, part)) if name}
    assert set(told) == fields_of(row)
    for field in msgspec.structs.fields(row):
        if isinstance(field.default, int | str) and field.default != "" and field.name != "smtp":
            assert told[field.name].strip("`") == str(field.default).replace("True", "true"), field.name


def test_the_outreach_guide_tells_every_setting_and_every_reason_to_end() -> None:
    in_force = [key for key in config.reference() if key.name.startswith("outreach.")]
    told = [
        (name, default.partition(" s")[0].partition(" days")[0], sentence)
        for name, default, sentence in rows(marked(OUTREACH, "settings"))
    ]
    assert told == [(f"`{key.name}`", f"`{key.default}`" if key.default else "", key.sentence) for key in in_force]
    ends = {reason: meaning for reason, meaning in REASONS.items() if reason is not Reason.NO_ASSOCIATE}
    assert rows(marked(OUTREACH, "reasons")) == [[f"`{reason}`", meaning] for reason, meaning in ends.items()]


def test_the_outreach_guide_is_read_by_the_daemon(tmp_path: Path) -> None:
    for text in blocks(OUTREACH, "toml config"):
        config.parse(text, tmp_path / "leadline.toml")
    (event,) = (decoder.decode(block.encode()) for block in blocks(OUTREACH, "json"))
    assert isinstance(event, ContactEvent)
    bounds = (bounce_guard.MAILS, bounce_guard.BAD_MIN, bounce_guard.BOUNCED_PERCENT_MAX, bounce_guard.COMPLAINTS)
    paragraph = re.search(r"\*\*Bounces\.\*\*.*?\n\n", read(OUTREACH), re.DOTALL)
    assert paragraph is not None
    assert tuple(map(int, re.findall(r"\b\d+\b", paragraph[0]))) == bounds
    told = " ".join(inline_code(OUTREACH))
    assert [name for name in templates._FILTERS if name not in told] == []


def scheduled(path: Path) -> Iterator[Submission]:
    """Every submission that a guide hands to a schedule, which has the teamspace from there."""
    for text in re.findall(r"echo '(\{.*\})' \| leadline schedule add", "\n".join(blocks(path, "sh"))):
        found = decoder.decode(json.dumps({"teamspace": "acme", **json.loads(text)}).encode())
        assert isinstance(found, Submission), found
        yield found


# Words and numbers ----------------------------------------------------------------------------------------------------


def keys() -> dict[str, config.Key]:
    return {key.name: key for key in config.reference()}


def as_reference(name: str) -> str:
    """The name of a key as the reference has it: NAME for what people choose."""
    return re.sub(r"^(plans|teamspaces|providers)\.\w+", r"\1.NAME", name)


@pytest.mark.parametrize("name", names_of(DOCUMENTS))
def test_every_setting_that_is_named_exists(name: str) -> None:
    known = {*keys(), *(limit.name for limit in config.limits())}
    sections = {key.partition(".")[0] for key in known}
    gone = []
    for code in inline_code(ROOT / name):
        setting = re.match(r"([a-z_]+)(?:\.[a-z_]+)+(?= = |$)", code)
        is_file = re.search(r"\.(toml|py|md|sock|conf)$", code)
        if setting and setting[1] in sections and not is_file and as_reference(setting[0]) not in known:
            gone.append(code)
    assert gone == []


def test_the_defaults_in_the_table_of_settings_are_those_in_force() -> None:
    table = re.search(r"^\| setting \| default .*?\n\n", read(OPERATIONS), re.DOTALL | re.MULTILINE)
    assert table is not None
    for name, default, _ in rows(table[0]):
        key = keys()[as_reference(name.strip("`"))]
        if key.default:
            assert default.replace(",", "") == key.default, name
        else:
            assert default in {"absent", "everybody for all"}, name


def test_every_runbook_is_for_a_word_that_exists_and_every_event_is_logged() -> None:
    words = {*ErrorCode, *JobReason}
    headings = re.findall(r"^### (\w+)$", read(OPERATIONS), re.MULTILINE)
    assert {"stalled", "worker_lost", "unavailable", "queue_full"} <= set(headings)
    assert [word for word in headings if word.lower() not in words] == []
    sources = "\n".join(read(path) for path in (ROOT / "daemon" / "leadline").rglob("*.py"))
    for event in re.findall(r"event=(\w+)", read(OPERATIONS)):
        assert re.search(rf'log\.\w+\(\s*"{event}"', sources), event


def test_no_kind_is_called_unbuilt() -> None:
    unbuilt = re.search(r"## What is not built yet\n.*?today:\n(.*?)\n## ", read(README), re.DOTALL)
    assert unbuilt is not None
    built = {str(kind.__struct_config__.tag) for kind in SUBMISSION_TYPES}
    assert set(re.findall(r"\w+", unbuilt[1])) & built == set()


def test_the_changelog_tells_of_the_version_that_this_is() -> None:
    version = tomllib.loads(read(ROOT / "daemon" / "pyproject.toml"))["project"]["version"]
    assert re.search(rf"^## {re.escape(version)}\b", read(CHANGELOG), re.MULTILINE)
    assert f"Version {version}" in read(README)


# The map and the diagram ----------------------------------------------------------------------------------------------


@pytest.mark.needs("git")
def test_the_map_names_only_what_exists_and_every_package() -> None:
    named = [re.sub(r"^`|`$", "", where) for where, _ in rows(marked(ARCHITECTURE, "code map"))]
    known = {str(path) for path in tracked_files()}
    folders = {f"{parent}/" for path in tracked_files() for parent in path.parents}
    assert [name for name in named if name not in known | folders] == []
    packages = {
        f"{path.parent}/"
        for path in tracked_files()
        if path.name == "__init__.py" and path.parts[0] in {"daemon", "protocol"}
    }
    assert sorted(packages - set(named)) == []
    assert len(named) == len(set(named))


def test_the_order_of_imports_is_the_one_that_is_enforced() -> None:
    sentence = re.search(r"Imports run one way: (.*?),\s+and all", read(ARCHITECTURE), re.DOTALL)
    assert sentence is not None
    told = [re.findall(r"`(\w+)`", layer) for layer in sentence[1].split("→")]
    contracts = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert told == [re.findall(r"\w+", layer) for layer in layers]


def test_the_diagram_of_states_is_the_table_of_the_code() -> None:
    drawn: dict[str, dict[str, str]] = {}
    state = ""
    for line in marked(ARCHITECTURE, "states").splitlines():
        arrow = re.match(r"(\w*) +── (\w+) ─+▶ (\w+)", line)
        if arrow is not None:
            state = arrow[1] or state
            assert arrow[2] not in drawn.setdefault(state, {}), line
            drawn[state][arrow[2]] = arrow[3]
    of_the_code: dict[str, dict[str, str]] = {
        str(before): {str(trigger): str(after) for trigger, after in arrows.items()}
        for before, arrows in TRANSITIONS.items()
        if arrows
    }
    assert drawn == of_the_code


@pytest.mark.needs("git")
def test_every_invariant_is_held_by_a_file_and_attacked_by_a_test() -> None:
    known = {str(path) for path in tracked_files()}
    for sentence, held, attacked in rows(marked(ARCHITECTURE, "invariants")):
        assert held.strip("`") in known, sentence
        file, _, test = attacked.strip("`").partition("::")
        assert file in known, sentence
        functions = {
            node.name
            for node in ast.walk(ast.parse(read(ROOT / file)))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert test in functions, f"{sentence}: {file} has no {test}"
