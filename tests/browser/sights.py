"""Every page as it is looked at: where, by whom, and what must be read there."""

from typing import Final, Literal

from msgspec import Struct

Who = Literal["ann", "operator"]
"""An admin of one teamspace; a super-admin who sees all of them."""


class Sight(Struct, frozen=True):
    """A page with something to show."""

    name: str
    """What is special about it."""
    address: str | None
    """As in the directory of pages; None: it is not there."""
    at: str
    """The same with names of things of the furniture (`tests.browser.furniture`) in braces, and with a query."""
    shows: tuple[str, ...] = ()
    """Words that must be read there, with scripts and without."""
    who: Who | None = "ann"
    """None: nobody has signed in."""
    status: int = 200


SIGHTS: Final = (
    # where nobody has signed in yet
    Sight("signed-out", None, "/jobs", ("Please sign in again",), who=None, status=401),
    Sight("nothing", None, "/nothing", ("Nothing here",), status=404),
    # jobs
    Sight("jobs", "/jobs", "/jobs", ("Jobs", "#{running}", "running", "#{upload}", "partial", "ann", "acme")),
    Sight("jobs-that-failed", "/jobs", "/jobs?state=failed", ("No job is failed",)),
    Sight("jobs-of-an-operator", "/jobs", "/jobs?teamspace=acme", ("acme", "#{running}"), who="operator"),
    Sight("jobs-of-all", "/jobs", "/jobs", ("of all teamspaces", "globex"), who="operator"),
    Sight("jobs-of-a-table", "/t/{table}/jobs", "/t/{table}/jobs", ("Jobs of prospects", "#{export}")),
    # one job
    Sight("job-running", "/jobs/{job}", "/jobs/{running}", ("#{running}", "running", "Cancel", "What has happened")),
    Sight("job-upload", "/jobs/{job}", "/jobs/{upload}", ("partial", "Why some were not done")),
    Sight("job-failed-leads", "/jobs/{job}", "/jobs/{formula}", ("partial", "Why some were not done", "Run again")),
    Sight("job-chain", "/jobs/{job}", "/jobs/{chain}", ("Steps", "completed")),
    Sight("job-export", "/jobs/{job}", "/jobs/{export}", ("Download the file",)),
    Sight("job-delayed", "/jobs/{job}", "/jobs/{delayed}", ("delayed", "Starts at")),
    Sight("job-run", "/jobs/{job}", "/jobs/{run}", ("Attempts", "What it prints", "canary-of-acme")),
    Sight("job-of-an-operator", "/jobs/{job}", "/jobs/{running}", ("#{running}",), who="operator"),
    Sight("job-log", "/jobs/{job}/log", "/jobs/{run}/log", ("What nightly prints", "canary-of-acme")),
    Sight("leads-not-done", "/jobs/{job}/leads", "/jobs/{formula}/leads", ("Leads that were not done", "Download all")),
    Sight("refused-rows", "/jobs/{job}/refused", "/jobs/{upload}/refused", ("Refused rows", "Download all as CSV")),
    # tables
    Sight("tables", "/tables", "/tables", ("prospects", "email, score, note", "Upload a file of leads")),
    Sight("table", "/t/{table}", "/t/{table}", ("prospects", "enrich #{running}", "Add leads from a file")),
    Sight("table-delete", "/t/{table}/delete", "/t/{table}/delete", ("Delete prospects?", "30 leads", "#{running}")),
    Sight("tables-of-an-operator", "/tables", "/tables?teamspace=acme", ("prospects",), who="operator"),
    Sight("run", "/t/{table}/run", "/t/prospects/run", ("Run something on prospects", "What should be done?")),
    # the operator's
    Sight("overview", "/operator", "/operator", ("The queue", "acme", "Mailboxes"), who="operator"),
    Sight("teamspaces", "/operator/teamspaces", "/operator/teamspaces", ("acme", "default"), who="operator"),
    Sight("no-teamspaces", "/operator/teamspaces", "/operator/teamspaces?prefix=zz", ("Show all",), who="operator"),
    Sight(
        "teamspace",
        "/operator/teamspaces/{teamspace}",
        "/operator/teamspaces/{teamspace}",
        ("slots.tables", "built in"),
        who="operator",
    ),
    Sight("providers", "/operator/providers", "/operator/providers", ("company", "silent", "database"), who="operator"),
    Sight(
        "provider",
        "/operator/providers/{provider}",
        "/operator/providers/silent",
        ("Who waits", "What the words mean"),
        who="operator",
    ),
    Sight("limit", "/operator/limit", "/operator/limit?teamspace=acme&key=weight", ("New value",), who="operator"),
    Sight("due", "/operator/due", "/operator/due", ("nightly", "02:30"), who="operator"),
    Sight("mailboxes", "/operator/mailboxes", "/operator/mailboxes", ("jo", "Sent today"), who="operator"),
    Sight("notices", "/operator/notices", "/operator/notices", ("All notices have arrived",), who="operator"),
    Sight("operator-of-a-customer", None, "/operator", ("Nothing here",), status=404),
    # batch jobs and schedules
    Sight("batch", "/batch", "/batch", ("nightly", "published", "#{run}", "completed")),
    Sight("batch-job", "/batch/{name}", "/batch/nightly", ("Version 1", "canary-of-acme", "#{run}")),
    Sight("batch-job-without-code", "/batch/{name}", "/batch/draft", ("It has no code yet",)),
    Sight("schedules", "/schedules", "/schedules", ("nightly", "02:30")),
    Sight("schedule", "/schedules/{name}", "/schedules/nightly", ("02:30", "Europe/Berlin")),
    Sight("new-schedule", "/new-schedule", "/new-schedule", ("A new schedule",)),
    # outreach
    Sight("outreach", "/outreach", "/outreach", ("jo@canary-of-acme.example", "ann@canary-of-acme.example", "pending")),
    Sight("outreach-chosen", "/outreach", "/outreach?status=stopped", ("None like that",)),
    Sight("outreach-of-an-operator", "/outreach", "/outreach?teamspace=acme", ("active",), who="operator"),
    Sight("outreach-preview", "/outreach/preview", "/outreach/preview", ("ann@canary-of-acme.example", "at once")),
    Sight("follow-up", "/outreach/follow_ups/{follow_up}", "/outreach/follow_ups/{follow_up}", ("The next mail",)),
    Sight("suppressions", "/outreach/suppressions", "/outreach/suppressions", ("gone.canary-of-acme.example",)),
)

NO_PAGES: Final = frozenset(
    {
        *("/", "/batch/{name}/versions/{version}", "/jobs/{job}/file", "/jobs/{job}/refused.csv"),
        "/jobs/{job}/leads.csv",
        "/jobs/{job}/log/news",
    }
)
"""Addresses that lead to another page, to a file, or to a piece of a page."""
