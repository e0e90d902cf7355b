"""A job or a chain as a person puts it together in a form: its steps, what they submit, and where a fault belongs.

The fields of step n are called `n.name`, from 0. `n.what` says what it does: `prompt`, `formula`, `export`, or `module`
and the module's name. What is submitted has the same fields as in the protocol, and a fault has its place there; here
that place is found again in the form.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from leadline.adapters.http.pages.tables import names
from leadline.adapters.http.pages.typed import Typed, whole
from leadline.features.tables.columns import normal_name
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused

STEPS_MAX: Final = 5

CHOICE: Final = "choice"
"""The type of a column that may hold certain words only, which stand in a field of their own."""

_AMOUNT: Final = re.compile(r"\d{1,12}(\.\d{1,6})?", re.ASCII)
_MODULE: Final = "module "
_STEP: Final = re.compile(r"steps\[(\d+)\]\.?")


class Step(Struct, frozen=True):
    """One step of the form."""

    what: str
    fields: Mapping[str, str] = {}
    module: wire.ModuleView | None = None
    """Of one that asks a module."""

    @property
    def kind(self) -> str:
        """Without the module's name."""
        return self.what.partition(" ")[0]

    def value(self, name: str, otherwise: str = "") -> str:
        """What stands in a field, without space around it."""
        return self.fields.get(name, otherwise).strip()

    def outputs(self) -> dict[str, str]:
        """Of a module: the column for each output that is wanted; before anybody has chosen, all under their names."""
        assert self.module is not None
        found = {name: self.value(f"output.{name}", name) for name in self.module.outputs}
        return {name: normal_name(column) for name, column in found.items() if column}

    def input_column(self, name: str, columns: Sequence[str]) -> str:
        """Of a module: the column that an input is read from, its namesake before anybody has chosen."""
        return self.value(f"input.{name}", name if name in columns else "")

    def names(self) -> list[str]:
        """The names of its fields, without those that only the fault of another could be about."""
        own = {
            "prompt": ["prompt", "column", "type", "words", "provider"],
            "formula": ["expression", "column", "type", "words"],
            "export": ["format", "columns"],
        }.get(self.kind, [])
        if self.module is not None:
            own += [f"input.{name}" for name in (*self.module.inputs, *self.module.optional_inputs)]
            own += [f"output.{name}" for name in self.module.outputs]
        return [*own, "where", "first", "spend_cap", "empty"]

    def fills(self) -> list[str]:
        """The columns that it fills."""
        if self.module is not None:
            return list(self.outputs().values())
        return [] if self.kind == "export" else [column for column in [normal_name(self.value("column"))] if column]


def new_step(what: str, modules: Sequence[wire.ModuleView], fields: Mapping[str, str] = {}) -> Step:
    """A step that does that. Raises Refused."""
    if what in {"formula", "export"} or (what == "prompt" and any(each.providers for each in modules)):
        return Step(what, fields)
    for each in modules:
        if what == f"{_MODULE}{each.module}" and not each.providers:
            return Step(what, fields, each)
    raise Refused(ErrorCode.UNKNOWN_MODULE, "choose what to do", at="what")


def read_steps(form: Mapping[str, str], modules: Sequence[wire.ModuleView]) -> list[Step]:
    """The steps of a form. Raises Refused."""
    steps: list[Step] = []
    while len(steps) < STEPS_MAX and (what := form.get(f"{len(steps)}.what")) is not None:
        prefix = f"{len(steps)}."
        fields = {name.removeprefix(prefix): value for name, value in form.items() if name.startswith(prefix)}
        steps.append(new_step(what, modules, fields))
    return steps


# -- what is submitted -------------------------------------------------------------------------------------------------


def submission(
    teamspace: str, table: str, columns: Sequence[str], steps: Sequence[Step], form: Mapping[str, str]
) -> dict[str, Any]:
    """What the form asks for; `columns` are those of the table. Raises Refused, with the place in the submission."""
    if not steps:
        raise Refused(ErrorCode.BAD_REQUEST, "add a step first", at="what")
    works: list[dict[str, Any]] = []
    known = list(columns)
    for number, step in enumerate(steps):
        try:
            works.append({"table": table, **_work(step, known)})
        except Refused as no:
            at = no.at if len(steps) == 1 else f"steps[{number}].{no.at}"
            raise Refused(no.code, no.message, at=at) from None
        known += step.fills()
    if len(works) > 1:
        return {
            "kind": "chain",
            "teamspace": teamspace,
            "steps": works,
            "on_failure": form.get("on_failure", "stop"),
        }
    return {**works[0], "teamspace": teamspace, "select_leads": form.get("select_leads", "on_start")}


def fingerprint(submitted: Mapping[str, Any]) -> str:
    """What tells a submission from another one."""
    return hashlib.sha256(msgspec.json.encode(submitted, order="deterministic")).hexdigest()[:24]


def _work(step: Step, columns: Sequence[str]) -> dict[str, Any]:
    work: dict[str, Any] = {}
    if where := step.value("where"):
        work["where"] = where
    if (empty := step.value("empty", "run")) != "run":
        work["empty"] = empty
    match step.kind:
        case "export":
            work |= {"kind": "export", "format": step.value("format", "csv")}
            if wanted := names(step.value("columns")):
                work["columns"] = wanted
            return work
        case "formula":
            return work | {"kind": "formula", "into": _into(step), "expression": step.value("expression")}
        case "prompt":
            params: dict[str, Any] = {"prompt": step.fields.get("prompt", "")}
            if provider := step.value("provider"):
                params["provider"] = provider
            work |= {"kind": "enrich", "module": "ai_prompt", "into": _into(step), "params": params}
        case _:
            work |= _of_module(step, columns)
    if first := step.value("first"):
        work["first"] = whole(first, "first", "a whole number, or nothing")
    if cap := step.value("spend_cap"):
        if not _AMOUNT.fullmatch(cap):
            raise Refused(ErrorCode.BAD_REQUEST, "a number of credits, or nothing", at="spend_cap")
        work["spend_cap"] = float(cap)
    return work


def _into(step: Step) -> dict[str, Any]:
    column = normal_name(step.value("column"))
    if not column:
        raise Refused(ErrorCode.BAD_REQUEST, "name the column that is to be filled", at="into")
    if step.value("type") != CHOICE:
        return {column: step.value("type", "text")}
    words = names(step.value("words"))
    if not words:
        raise Refused(ErrorCode.BAD_REQUEST, "name the words that it may hold", at="words")
    return {column: words}


def _of_module(step: Step, columns: Sequence[str]) -> dict[str, Any]:
    module = step.module
    assert module is not None
    inputs: dict[str, str] = {}
    for name in (*module.inputs, *module.optional_inputs):
        column = step.input_column(name, columns)
        if not column and name in module.inputs:
            raise Refused(ErrorCode.BAD_REQUEST, "choose the column in which it stands", at=f"params.inputs.{name}")
        if column and column != name:
            inputs[name] = column
    outputs = step.outputs()
    if not outputs:
        raise Refused(ErrorCode.BAD_REQUEST, "name a column for at least one of its results", at="into")
    params: dict[str, Any] = {}
    if inputs:
        params["inputs"] = inputs
    if renamed := {column: name for name, column in outputs.items() if column != name}:
        params["outputs"] = renamed
    return {
        "kind": "enrich",
        "module": module.module,
        "into": {column: module.outputs[name] for name, column in outputs.items()},
        "params": params,
    }


# -- where a fault belongs ---------------------------------------------------------------------------------------------


def typed_steps(steps: Sequence[Step], refused: Refused | None) -> list[Typed]:
    """Each step's own fields, with the fault at the field of the step that it is about."""
    number, fault = (None, None) if refused is None else located(steps, refused)
    return [Typed(step.fields, fault if place == number else None) for place, step in enumerate(steps)]


def located(steps: Sequence[Step], refused: Refused) -> tuple[int | None, Refused]:
    """The step, from 0, that a refusal is about, and the same at a field of that step; None: it is about none."""
    at = refused.at or ""
    step = _STEP.match(at)
    number = int(step[1]) if step else 0
    if number >= len(steps) or (step is None and (len(steps) > 1 or at.partition(":")[0] in _OF_ALL)):
        return None, refused
    path, colon, character = at[step.end() if step else 0 :].partition(":")
    field = _field(steps[number], path)
    return number, Refused(refused.code, refused.message, at=f"{field}{colon}{character}")


_OF_ALL: Final = {"", "kind", "teamspace", "table", "what", "select_leads", "idempotency_key"}


def _field(step: Step, path: str) -> str:
    """The field of a step's form that stands for a field of what is submitted."""
    head, _, rest = path.partition(".")
    if head == "params":
        kind, _, name = rest.partition(".")
        return {"inputs": f"input.{name}" if name else "inputs"}.get(kind, kind)
    if head != "into":
        return head
    if step.module is None:
        return "column"
    return next((f"output.{name}" for name, column in step.outputs().items() if column == rest), "into")
