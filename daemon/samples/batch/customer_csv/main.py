"""Takes the newest CSV out of a customer's folder on the web, and has its rows upserted by API.

Settings: folder_url (a listing, as web servers make one), api_url. Secrets: folder_password (for the user "leadline"),
api_key. The CSV has the columns email, name and company. Another than the newest is taken by --query file=NAME.

A row that is no good stops nothing: it is a line of the log, and all of them are in one mail to whom --mail-failure
names. Rows are upserted by their e-mail address, so a retry changes nothing that is right already.
"""

import csv
import html
import io
import json
import re
import urllib.error
import urllib.request
from base64 import b64encode
from html.parser import HTMLParser
from urllib.parse import quote, unquote, urljoin

from helper import LS

COLUMNS = ["email", "name", "company"]
ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


class Listing(HTMLParser):
    """The names of the CSV files that a page has links to."""

    def __init__(self):
        super().__init__()
        self.names = []

    def handle_starttag(self, tag, attrs):
        target = dict(attrs).get("href") or ""
        if tag == "a" and target.lower().endswith(".csv") and "/" not in target:
            self.names.append(unquote(target))


def main(event):
    name = event["query_string_parameters"].get("file") or newest()
    LS.log.info("reading", name)
    text = fetched(quote(name)).decode("utf-8-sig")
    bad, good = [], 0
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    missing = set(COLUMNS) - set(rows.fieldnames or [])
    if missing:
        raise ValueError(f"{name} has no column {', '.join(sorted(missing))}")
    for row in rows:
        fault = fault_of(row) or upsert(row)
        if fault is None:
            good += 1
        else:
            LS.log.warn(f"line {rows.line_num} is left out: {fault}")
            bad.append((rows.line_num, row["email"] or "", fault))
        LS.progress(good + len(bad))
    if bad:
        LS.email.send_email_notification("Failure", f"{len(bad)} bad rows in {name}", table(name, bad))
    return {"file": name, "upserted": good, "bad": len(bad)}


def newest():
    """The last file by name: they are named after their days."""
    listing = Listing()
    listing.feed(fetched("").decode())
    if not listing.names:
        raise ValueError("there is no CSV in the folder")
    return max(listing.names)


def fetched(name):
    """A file of the folder, or its listing."""
    user = b64encode(f"leadline:{LS.settings.folder_password}".encode()).decode()
    request = urllib.request.Request(urljoin(LS.settings.folder_url, name), headers={"authorization": f"Basic {user}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read()


def fault_of(row):
    """What is wrong with a row, as far as we can tell; None for a good one."""
    if None in row:
        return "it has too many columns"
    if None in row.values():
        return "it has too few columns"
    if not ADDRESS.fullmatch(row["email"].strip()):
        return "it has no e-mail address"
    return None


def upsert(row):
    """Hand a row over. Returns why the API refuses it, or None."""
    lead = {name: row[name].strip() for name in COLUMNS}
    lead["email"] = lead["email"].lower()
    headers = {"authorization": f"Bearer {LS.settings.api_key}", "content-type": "application/json"}
    url = f"{LS.settings.api_url}/leads/{quote(lead['email'])}"
    request = urllib.request.Request(url, json.dumps(lead).encode(), headers, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=30):
            return None
    except urllib.error.HTTPError as error:
        if error.code != 422:
            raise
        return json.load(error)["error"]


def table(name, bad):
    """The mail."""
    rows = "".join(
        f"<tr><td>{line}</td><td>{html.escape(email)}</td><td>{html.escape(fault)}</td></tr>"
        for line, email, fault in bad
    )
    head = "<tr><th>Line</th><th>E-mail</th><th>Why</th></tr>"
    return f"<p>These rows of {html.escape(name)} were left out:</p><table>{head}{rows}</table>"
