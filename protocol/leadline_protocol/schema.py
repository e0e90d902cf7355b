"""The messages as JSON Schema 2020-12, for implementers in other languages: `python -m leadline_protocol.schema`.

The types are the source and schema.json is made of them, with the words that stand under a field in the source as its
description. `--check` says whether the file is what the types would give, which a test asks too. What a schema cannot
say (that of two fields only one may be given) is in the descriptions.
"""

import argparse
import ast
import inspect
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from leadline_protocol import messages, schedules
from leadline_protocol.errors import ERROR_CODES, JOB_REASONS, LEAD_REASONS, ErrorCode, JobReason, LeadReason
from leadline_protocol.messages import (
    CONTROL_OPERATIONS,
    PROTOCOL_VERSION,
    REPLY_TYPES,
    SUBMISSION_TYPES,
    SUBMIT_OPERATIONS,
    Ended,
    Missed,
    Preview,
    Progress,
    Queued,
    Receipt,
    Refusal,
    Started,
)

PATH: Final = Path(__file__).with_name("schema.json")

_REPLIES: Final[tuple[type[msgspec.Struct], ...]] = (
    Receipt,
    Preview,
    *(reply for reply in dict.fromkeys(REPLY_TYPES.values()) if reply is not Receipt),
    Refusal,
)
_NOTICES: Final[tuple[type[msgspec.Struct], ...]] = (Queued, Started, Progress, Ended, Missed)


def build() -> dict[str, Any]:
    """The schema of every line, by who may send it."""
    types = [*SUBMISSION_TYPES, *CONTROL_OPERATIONS, *_REPLIES, *_NOTICES]
    _, definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    said = _field_documentation()
    for name, definition in definitions.items():
        struct = getattr(messages, name, None) or getattr(schedules, name)
        if "description" in definition:  # Python 3.13 takes the indentation out of docstrings, 3.11 does not
            definition["description"] = inspect.cleandoc(definition["description"])
        if issubclass(struct, msgspec.Struct):
            _describe(definition, struct, said)
    for listed, meanings in ((ErrorCode, ERROR_CODES), (JobReason, JOB_REASONS), (LeadReason, LEAD_REASONS)):
        definition = definitions[listed.__name__]
        del definition["enum"]
        definition["oneOf"] = [{"const": word.value, "description": meaning} for word, meaning in meanings.items()]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:leadline:protocol:{PROTOCOL_VERSION}",
        "title": "A line on a socket of Leadline",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in ("ControlRequest", "Reply", "Notice")],
        "$defs": {
            "SubmitRequest": _any_of("What the submit socket takes.", (*SUBMISSION_TYPES, *SUBMIT_OPERATIONS)),
            "ControlRequest": _any_of("What the control socket takes.", (*SUBMISSION_TYPES, *CONTROL_OPERATIONS)),
            "Reply": _any_of("What the daemon answers, a line for each request, in their order.", _REPLIES),
            "Notice": _any_of("What the daemon says between replies.", _NOTICES),
            **definitions,
        },
    }


def text() -> str:
    """What schema.json holds."""
    return json.dumps(build(), indent=1, ensure_ascii=False) + "\n"


def _any_of(description: str, types: Iterable[type]) -> dict[str, Any]:
    return {"description": description, "anyOf": [{"$ref": f"#/$defs/{each.__name__}"} for each in types]}


def _describe(definition: dict[str, Any], struct: type[msgspec.Struct], texts: dict[str, dict[str, str]]) -> None:
    """Put the words under each field into the schema, and say of fields that a factory fills that they are there."""
    # A step's fields are explained where the submission of the same kind has them.
    sources = [base.__name__ for base in struct.__mro__] + [struct.__name__.removesuffix("Step")]
    for field in msgspec.structs.fields(struct):
        for source in sources:
            if said := texts.get(source, {}).get(field.name):
                schema = definition["properties"][field.encode_name]
                definition["properties"][field.encode_name] = {"description": said} | schema
                break
        written_always = field.default_factory not in (msgspec.NODEFAULT, list, dict)
        if written_always:
            definition.setdefault("required", []).append(field.encode_name)


def _field_documentation() -> dict[str, dict[str, str]]:
    """Class → field → the text that stands under the field in the source."""
    found: dict[str, dict[str, str]] = {}
    structs = [
        each
        for each in (*vars(messages).values(), *vars(schedules).values())
        if inspect.isclass(each) and issubclass(each, msgspec.Struct) and each is not msgspec.Struct
    ]
    sources = dict.fromkeys(struct.__module__ for struct in structs)
    for node in (node for name in sources for node in ast.parse(inspect.getsource(sys.modules[name])).body):
        if isinstance(node, ast.ClassDef):
            texts = found[node.name] = {}
            for field, under in zip(node.body, node.body[1:], strict=False):
                match field, under:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                        texts[name] = inspect.cleandoc(said).replace("\n", " ")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Write schema.json; with --check only say whether it would change: 0 no, 1 yes."""
    parser = argparse.ArgumentParser(prog="python -m leadline_protocol.schema", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the file is out of date")
    check = parser.parse_args(arguments).check
    wanted = text()
    if check:
        current = PATH.read_text(encoding="utf-8") if PATH.exists() else ""
        if current != wanted:
            sys.stderr.write(f"{PATH} is out of date: run python -m leadline_protocol.schema\n")
        return int(current != wanted)
    PATH.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
