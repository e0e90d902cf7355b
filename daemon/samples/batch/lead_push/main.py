"""Searches the teamspace's own leads, and pushes those that are found to a third party, 100 at a time.

Settings: push_url, country, score_min, table. Secrets: push_key. The plan has to allow the database
(batch.own_database = "read"). What is searched for may be said with a call too, as --query country=DE.

A batch that fails is tried again after 1, 2, 4 and 8 seconds. Its key comes of the run and of what is in it: the third
party can tell what it has already, also in a retry of the run.
"""

import json
import random
import time
import urllib.error
import urllib.request
from hashlib import sha256

from helper import LS

PAUSES = [1, 2, 4, 8]
"""Seconds before each further try of a batch."""

FOUND = """
select id, data, count(*) over () as remaining
from leads
where table_name = $1 and data->>'country' = $2 and coalesce(data->>'email', '') <> ''
    and case when data->>'score' ~ '^[0-9]{1,9}$' then (data->>'score')::int >= $3::int else false end
    and id > $4::bigint
order by id
limit 100
"""


def main(event):
    query = event["query_string_parameters"]
    country = query.get("country") or LS.settings.country
    score_min = int(query.get("score_min") or LS.settings.score_min)
    pushed = after = 0
    while page := LS.db.execute_DB_query(FOUND, parameters=[LS.settings.table, country, score_min, after]):
        total = pushed + page[0]["remaining"]
        push(event["job_instance_id"], [{"id": row["id"], **row["data"]} for row in page])
        pushed, after = pushed + len(page), page[-1]["id"]
        LS.log.info("pushed", {"leads": pushed, "of": total})
        LS.progress(pushed, total)
    return {"pushed": pushed}


def push(instance, leads):
    """Push one batch. Raises the last error when it cannot be done."""
    data = json.dumps({"leads": leads}).encode()
    key = f"{instance}-{sha256(data).hexdigest()}"
    headers = {
        "authorization": f"Bearer {LS.settings.push_key}",
        "content-type": "application/json",
        "idempotency-key": key,
    }
    request = urllib.request.Request(f"{LS.settings.push_url}/leads", data, headers)
    for pause in [*PAUSES, None]:
        try:
            with urllib.request.urlopen(request, timeout=30):
                return
        except OSError as error:  # HTTPError and URLError are kinds of it
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429
            if refused or pause is None:
                raise
            LS.log.warn("a batch is tried again", str(error))
            time.sleep(pause * random.uniform(1, 1.25))
