"""Mails a report of the teamspace's own leads every day: how many each table has, and where they stand.

Settings: status_column (the column that tells where a lead stands; "status" unless set). The plan has to allow the
database (batch.own_database = "read"), and --mail-success names who gets the report.
"""

import html
from datetime import date

from helper import LS

TABLES = """
select table_name, count(*) as leads, count(*) filter (where coalesce(data->>'email', '') <> '') as with_email
from leads
group by table_name
order by table_name
"""

STATUSES = """
select coalesce(nullif(data->>$1, ''), '(none)') as status, count(*) as leads
from leads
group by 1
order by leads desc, status
"""


def main():
    tables = LS.db.execute_DB_query(TABLES)
    statuses = LS.db.execute_DB_query(STATUSES, parameters=[LS.settings.get("status_column", "status")])
    total = sum(row["leads"] for row in tables)
    body = "\n".join(
        [
            f"<h1>{total:,} leads</h1>",
            table(["Table", "Leads", "With e-mail"], [row.values() for row in tables]),
            table(["Status", "Leads"], [row.values() for row in statuses]),
        ]
    )
    LS.email.send_email_notification("Success", f"Leads of {date.today():%d %B %Y}: {total:,}", body, isHTML=True)
    LS.log.info("reported", {"tables": len(tables), "leads": total})
    return {"leads": total}


def table(head, rows):
    """A table of HTML; what comes from leads is text in it, whatever it looks like."""
    lines = ["<tr>" + "".join(f"<th>{html.escape(each)}</th>" for each in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{html.escape(str(each))}</td>" for each in row) + "</tr>" for row in rows]
    return "<table>" + "".join(lines) + "</table>"
