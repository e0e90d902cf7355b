"""Makes one report over two teamspaces, each asked by its own key.

Settings: api_url, teamspaces ("north,south"). Secrets: key_north, key_south. --mail-success names who gets the report.
"""

import html
import json
import urllib.parse
import urllib.request

from helper import LS


def main():
    names = LS.settings.teamspaces.split(",")
    leads = {name: list(leads_of(name)) for name in names}
    addresses = [{lead["email"].lower() for lead in each} for each in leads.values()]
    report = {
        "leads": {name: len(each) for name, each in leads.items()},
        "people": len(set.union(*addresses)),
        "in_all": sorted(set.intersection(*addresses)),
    }
    LS.log.info("counted", report["leads"])
    LS.email.send_email_notification("Success", f"Leads of {' and '.join(names)}", body(report))
    return report


def leads_of(name):
    """The leads of a teamspace, page after page."""
    cursor = ""
    while cursor is not None:
        query = urllib.parse.urlencode({"cursor": cursor})
        request = urllib.request.Request(
            f"{LS.settings.api_url}/leads?{query}", headers={"authorization": f"Bearer {LS.settings['key_' + name]}"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            page = json.load(response)
        yield from page["leads"]
        cursor = page["next"]


def body(report):
    """The mail."""
    rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{n}</td></tr>" for name, n in report["leads"].items())
    both = "".join(f"<li>{html.escape(each)}</li>" for each in report["in_all"])
    return f"<table>{rows}</table><p>{report['people']} people; in all of them:</p><ul>{both}</ul>"
