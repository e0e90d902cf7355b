"""Run a job or a chain on a table: put together step by step, looked at before it costs anything, then handed in."""

import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from aiohttp import web
from msgspec import Struct

from leadline.adapters.http.pages import previews, tables
from leadline.adapters.http.pages.steps import (
    CHOICE,
    STEPS_MAX,
    Step,
    fingerprint,
    located,
    new_step,
    read_steps,
    submission,
    typed_steps,
)
from leadline.adapters.http.pages.typed import Typed
from leadline.adapters.http.pages.visit import Visit, in_path
from leadline_protocol import messages as wire
from leadline_protocol.errors import ErrorCode, Refused

TOKEN_CHARACTERS_MAX: Final = 40
EMPTY: Final = {
    "run": "the step ends at once, as done",
    "skip": "the step is left out",
    "hold": "the step waits for you",
}


class Shown(Struct, frozen=True):
    """A step as the page shows it."""

    title: str
    step: Step
    form: Typed
    columns: Sequence[str]
    """Those that it can read: the table's, and what steps before it fill."""
    preview: wire.StepPreview | None = None
    takes: Sequence[str] = ()
    trials: Sequence[previews.Trial] = ()


async def begin(visit: Visit) -> web.StreamResponse:
    """An empty form."""
    return await _Run(visit, await _table(visit), await _modules(visit)).page([])


async def go_on(visit: Visit) -> web.StreamResponse:
    """What the form's buttons do: add a step, take one out, see what it would take, run it."""
    run = _Run(visit, await _table(visit), await _modules(visit))
    form, do = visit.form.fields, visit.query.get("do", "see")
    try:
        steps = read_steps(form, run.modules)
    except Refused as no:
        return await run.page([], refused=no)
    if do == "add":
        return await run.add(steps)
    if do.startswith("drop"):
        dropped = do.removeprefix("drop")
        return await run.page([step for number, step in enumerate(steps) if str(number) != dropped])
    try:
        wanted = submission(visit.certain_teamspace, run.table.table, run.columns, steps, form)
        print_ = fingerprint(wanted)
        if do == "run" and form.get("seen") == print_:
            token = form.get("token", "")[:TOKEN_CHARACTERS_MAX]
            # Pressed twice, it is one job; what was changed in between is another one.
            receipt = await visit.submit({**wanted, "idempotency_key": f"page-{token}-{print_}"})
            assert isinstance(receipt, wire.Receipt)
            return visit.see(f"/jobs/{receipt.job}", said="submitted")
        preview = await visit.submit({**wanted, "dry_run": True})
    except Refused as no:
        return await run.page(steps, refused=no)
    assert isinstance(preview, wire.Preview)
    return await run.page(steps, preview=preview, seen=print_, changed=do == "run")


class _Run:
    """The page."""

    def __init__(self, visit: Visit, table: wire.TableView, modules: Sequence[wire.ModuleView]) -> None:
        self.table: Final = table
        self.modules: Final = modules
        self.columns: Final = [column.name for column in table.columns]
        self._visit = visit

    async def add(self, steps: Sequence[Step]) -> web.Response:
        """The form with one more step."""
        try:
            if len(steps) == STEPS_MAX:
                raise Refused(ErrorCode.BAD_REQUEST, f"a chain here has at most {STEPS_MAX} steps", at="what")
            more = new_step(self._visit.form.fields.get("what", ""), self.modules)
        except Refused as no:
            return await self.page(steps, refused=no)
        return await self.page([*steps, more])

    async def page(
        self,
        steps: Sequence[Step],
        *,
        refused: Refused | None = None,
        preview: wire.Preview | None = None,
        seen: str = "",
        changed: bool = False,
    ) -> web.Response:
        """The form. `seen`: which submission the preview is of; `changed`: it is another one than was looked at."""
        form = self._visit.form.fields
        about_all = refused if refused is not None and located(steps, refused)[0] is None else None
        return self._visit.page(
            "run.html",
            status=Typed(form, refused).status,
            table=self.table,
            columns=[(column.name, tables.type_words(column.type)) for column in self.table.columns],
            steps=shown(steps, self.columns, refused, preview),
            form=Typed(form, about_all),
            choices=choices(self.modules),
            whom={"": "the usual one", **{name: name for name in _providers(self.modules)}},
            types={**tables.TYPES, CHOICE: "one of these words"},
            empty=EMPTY,
            formats=tables.FORMATS,
            may_add=len(steps) < STEPS_MAX,
            preview=preview,
            seen=seen,
            changed=changed,
            token=form.get("token") or secrets.token_hex(12),
            here_is=f"/t/{in_path(self.table.table)}",
        )


def shown(
    steps: Sequence[Step], columns: Sequence[str], refused: Refused | None, preview: wire.Preview | None
) -> list[Shown]:
    """The steps as the page shows them."""
    found: list[Shown] = []
    known = list(columns)
    for number, (step, form) in enumerate(zip(steps, typed_steps(steps, refused), strict=True)):
        taken = None if preview is None else preview.steps[number]
        takes = [] if taken is None else list(previews.sentences(taken))
        trials = [] if taken is None else [previews.trial(each) for each in taken.trials]
        found.append(Shown(title_of(step), step, form, list(dict.fromkeys(known)), taken, takes, trials))
        known += step.fills()
    return found


TITLES: Final[Mapping[str, str]] = {
    "prompt": "Ask an AI about each lead",
    "formula": "Calculate a column",
    "export": "Write a file",
}


def title_of(step: Step) -> str:
    """What a step does, in words."""
    return TITLES[step.kind] if step.module is None else f"Look up with {step.module.module}"


def choices(modules: Sequence[wire.ModuleView]) -> list[tuple[str, str]]:
    """What a step may do: the word for it, and what a person reads."""
    prompts = [("prompt", TITLES["prompt"])] if any(each.providers for each in modules) else []
    lookups = [(f"module {each.module}", _module_words(each)) for each in modules if not each.providers]
    return [*prompts, ("formula", TITLES["formula"]), *lookups, ("export", TITLES["export"])]


def _module_words(module: wire.ModuleView) -> str:
    return f"Look up with {module.module}" + (f" ({module.title})" if module.title else "")


def _providers(modules: Sequence[wire.ModuleView]) -> Sequence[str]:
    """Whom prompts may be sent to."""
    return [provider for each in modules for provider in each.providers]


async def _table(visit: Visit) -> wire.TableView:
    teamspace, table = visit.certain_teamspace, visit.values[0]
    reply = await visit.ask(wire.Tables(teamspace=teamspace, table=table, limit=1))
    if not reply.tables:
        raise Refused(ErrorCode.UNKNOWN_TABLE, f"{teamspace} has no table {table}", at="table")
    return reply.tables[0]


async def _modules(visit: Visit) -> Sequence[wire.ModuleView]:
    reply = await visit.ask(wire.Tables(teamspace=visit.certain_teamspace, action="modules"))
    return reply.modules
