"""Sums up the sales of the last whole week or month in the ETL database: one program, two schedules.

    echo '{"kind":"batch","batch_job":"sales-summary","query_string_parameters":{"period":"week"}}' |
        leadline schedule add sales-weekly - --teamspace acme --weekly mon --at 04:00 --zone Europe/Berlin
    echo '{"kind":"batch","batch_job":"sales-summary","query_string_parameters":{"period":"month"}}' |
        leadline schedule add sales-monthly - --teamspace acme --monthly 1 --at 06:00 --zone Europe/Berlin

The plan has to allow writing there (batch.etl_database = "write"). It reads the table sale (region, amount, sold_at),
and keeps the table sale_summary. The week or month before another day is summed up with --body '{"day":"2026-03-04"}';
doing so again replaces what was there.
"""

from datetime import date, timedelta

from helper import LS

CREATE = """
create table if not exists sale_summary (
    period text, begins date, region text, sales bigint, amount numeric, primary key (period, begins, region)
)
"""

SUM_UP = """
insert into sale_summary (period, begins, region, sales, amount)
select $1::text, $2::date, region, count(*), sum(amount)
from sale
where sold_at >= $2::date and sold_at < $3::date
group by region
on conflict (period, begins, region) do update set sales = excluded.sales, amount = excluded.amount
"""

READ = """
select sum(sales)::bigint as sales, sum(amount) as amount from sale_summary where period = $1 and begins = $2::date
"""


def main(event):
    period = event["query_string_parameters"]["period"]
    said = (event["body"] or {}).get("day")
    begins, ends = bounds(period, date.fromisoformat(said) if said else date.today())
    LS.db.execute_ETL_query(CREATE)
    regions = LS.db.execute_ETL_query(SUM_UP, parameters=[period, begins, ends])
    whole = LS.db.execute_ETL_query(READ, parameters=[period, begins])[0]
    LS.log.info(f"the {period} from {begins} until before {ends}", {"regions": regions})
    return {
        "period": period,
        "begins": str(begins),
        "regions": regions,
        "sales": whole["sales"] or 0,
        "amount": str(whole["amount"] or 0),
    }


def bounds(period, day):
    """The first day of the last whole week or month before a day, and the first day after it."""
    if period == "week":
        ends = day - timedelta(days=day.weekday())
        return ends - timedelta(days=7), ends
    if period == "month":
        ends = day.replace(day=1)
        return (ends - timedelta(days=1)).replace(day=1), ends
    raise ValueError(f"the period is week or month, not {period}")
