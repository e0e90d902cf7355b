"""Every page, in one table: its address, and what answers it."""

from typing import Final

from msgspec import Struct

from leadline.adapters.http.pages import (
    batch,
    home,
    job,
    jobs,
    leads_not_done,
    limits,
    operator,
    operator_one,
    outreach,
    refused_rows,
    run,
    schedules,
    tables,
    uploads,
)
from leadline.adapters.http.pages.visit import Handler


class Page(Struct, frozen=True):
    """One method at one address: GET shows something, POST takes a form."""

    method: str
    path: str
    """A name in braces is one of the visit's values."""
    handler: Handler


PAGES: Final[tuple[Page, ...]] = (
    Page("GET", "/", home.home),
    # jobs
    Page("GET", "/jobs", jobs.of_teamspace),
    Page("GET", "/t/{table}/jobs", jobs.of_table),
    Page("GET", "/jobs/{job}/file", jobs.file),
    Page("POST", "/jobs/{job}/cancel", jobs.cancel),
    Page("POST", "/jobs/{job}/pause", jobs.pause),
    Page("POST", "/jobs/{job}/resume", jobs.resume),
    Page("POST", "/jobs/{job}/rerun", jobs.rerun),
    # one job
    Page("GET", "/jobs/{job}/leads", leads_not_done.not_done),
    Page("GET", "/jobs/{job}/leads.csv", leads_not_done.not_done_file),
    Page("GET", "/jobs/{job}/refused", refused_rows.refused),
    Page("GET", "/jobs/{job}/refused.csv", refused_rows.refused_file),
    Page("GET", "/jobs/{job}", job.one),
    Page("GET", "/jobs/{job}/log", job.log),
    Page("GET", "/jobs/{job}/log/news", job.news),
    # tables
    Page("GET", "/tables", tables.of_teamspace),
    Page("POST", "/tables", uploads.into_new),
    Page("GET", "/t/{table}", tables.one),
    Page("POST", "/t/{table}", uploads.into_table),
    Page("POST", "/t/{table}/export", tables.export),
    Page("POST", "/t/{table}/retain", tables.retain),
    Page("GET", "/t/{table}/delete", tables.ask_delete),
    Page("POST", "/t/{table}/delete", tables.delete),
    Page("GET", "/t/{table}/run", run.begin),
    Page("POST", "/t/{table}/run", run.go_on),
    # the operator's
    Page("GET", "/operator", operator.overview),
    Page("POST", "/operator/pause", operator.pause),
    Page("POST", "/operator/resume", operator.resume),
    Page("GET", "/operator/teamspaces", operator.teamspaces),
    Page("GET", "/operator/teamspaces/{teamspace}", operator_one.teamspace),
    Page("GET", "/operator/providers", operator.providers),
    Page("GET", "/operator/providers/{provider}", operator_one.provider),
    Page("GET", "/operator/limit", limits.one),
    Page("POST", "/operator/limit", limits.change),
    Page("GET", "/operator/due", operator.due),
    Page("GET", "/operator/mailboxes", operator.mailboxes),
    Page("GET", "/operator/notices", operator.notices),
    Page("POST", "/operator/notices", operator.send_again),
    # batch jobs and schedules
    Page("GET", "/batch", batch.overview),
    Page("POST", "/batch", batch.create),
    Page("GET", "/batch/{name}", batch.one),
    Page("POST", "/batch/{name}/upload", batch.upload),
    Page("POST", "/batch/{name}/set", batch.conduct),
    Page("POST", "/batch/{name}/publish", batch.publish),
    Page("POST", "/batch/{name}/unpublish", batch.unpublish),
    Page("POST", "/batch/{name}/run", batch.run),
    Page("POST", "/batch/{name}/delete", batch.delete),
    Page("GET", "/batch/{name}/versions/{version}", batch.archive),
    Page("GET", "/schedules", schedules.overview),
    Page("GET", "/new-schedule", schedules.new),
    Page("POST", "/new-schedule", schedules.add),
    Page("GET", "/schedules/{name}", schedules.one),
    Page("POST", "/schedules/{name}/pause", schedules.pause),
    Page("POST", "/schedules/{name}/resume", schedules.resume),
    Page("POST", "/schedules/{name}/delete", schedules.delete),
    # outreach
    Page("GET", "/outreach", outreach.overview),
    Page("GET", "/outreach/preview", outreach.preview),
    Page("POST", "/outreach/queue", outreach.queue),
    Page("GET", "/outreach/follow_ups/{follow_up}", outreach.follow_up),
    Page("POST", "/outreach/follow_ups/{follow_up}/stop", outreach.stop),
    Page("POST", "/outreach/mails/{mail}/resolve", outreach.resolve),
    Page("POST", "/outreach/associates/{associate}/pause", outreach.pause),
    Page("POST", "/outreach/associates/{associate}/resume", outreach.resume),
    Page("GET", "/outreach/suppressions", outreach.suppressions),
    Page("POST", "/outreach/suppressions", outreach.suppress),
    Page("POST", "/outreach/suppressions/allow", outreach.allow),
)
