"""Copies the new leads of one account into another every night, by the HTTP APIs of both.

Settings: source_url, target_url, page_size (100 unless set). Secrets: source_key, target_key. Worth a retry.

A lead's number in the source is its `external_id` in the target, and leads are sent one by one in the order of these
numbers. So the target itself knows how far we got: after a failure half-way, also one that lost only the reply, the
next attempt begins behind the newest that is there, and nothing is sent twice.
"""

import json
import urllib.error
import urllib.parse
import urllib.request

from helper import LS

ORIGIN = "source-account"


def main():
    settings = LS.settings
    page_size = int(settings.get("page_size", 100))
    after = ask(settings.target_url, settings.target_key, "/leads/newest", origin=ORIGIN)["external_id"]
    LS.log.info("beginning behind lead", after)
    sent = refused = 0
    while True:
        page = ask(settings.source_url, settings.source_key, "/leads", after=after, limit=page_size)["leads"]
        for lead in page:
            if send(lead):
                sent += 1
            else:
                refused += 1
            after = lead["id"]
        LS.progress(sent + refused)
        if len(page) < page_size:
            break
    LS.log.info("done", {"sent": sent, "refused": refused})
    return {"sent": sent, "refused": refused}


def send(lead):
    """Give one lead to the target. Returns False where it will not have it, as it would tomorrow."""
    said = {"origin": ORIGIN, "external_id": lead["id"], "email": lead["email"], "name": lead["name"]}
    try:
        ask(LS.settings.target_url, LS.settings.target_key, "/leads", said)
    except urllib.error.HTTPError as error:
        if error.code != 422:
            raise
        LS.log.warn("the target refuses a lead", {"id": lead["id"], "why": error.read().decode(errors="replace")})
        return False
    return True


def ask(url, key, path, document=None, **query):
    """One request: POST with a document, else GET. Raises for whatever is no success, which ends this attempt."""
    data = None if document is None else json.dumps(document).encode()
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    request = urllib.request.Request(f"{url}{path}?{urllib.parse.urlencode(query)}", data, headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)
