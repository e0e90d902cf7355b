"""Makes the invoices of a day's orders as one PDF, a page each, and files it with the document service.

Settings: orders_url, documents_url, seller. Secrets: orders_key, documents_key. The orders are yesterday's, or those of
--query day=2026-03-01. The PDF is written by pdf.py beside this file, with nothing but Python.

The document has its name from the day, and the service replaces one of the same name: a retry files nothing twice.
"""

import json
import urllib.request
from datetime import date, timedelta
from decimal import Decimal

from helper import LS
from pdf import Line, document


def main(event):
    day = event["query_string_parameters"].get("day") or str(date.today() - timedelta(days=1))
    orders = json.loads(ask("GET", f"{LS.settings.orders_url}/orders?day={day}", LS.settings.orders_key))["orders"]
    if not orders:
        LS.log.info("no orders on", day)
        return {"invoices": 0}
    totals = [total_of(order) for order in orders]
    pages = [invoice(day, order, total) for order, total in zip(orders, totals)]
    name = f"invoices-{day}.pdf"
    ask("PUT", f"{LS.settings.documents_url}/documents/{name}", LS.settings.documents_key, document(pages))
    LS.log.info(f"filed {name}", {"invoices": len(pages)})
    return {"invoices": len(pages), "total": str(sum(totals))}


def total_of(order):
    """What an order comes to; prices are texts, so that no cent gets lost."""
    return sum((Decimal(item["price"]) * item["quantity"] for item in order["items"]), Decimal())


def invoice(day, order, total):
    """The lines of one page."""
    lines = [
        Line(60, 780, LS.settings.seller, 16),
        Line(60, 740, f"Invoice {order['number']} of {day}", 12),
        Line(60, 720, order["customer"]),
    ]
    height = 680
    for item in order["items"]:
        price = Decimal(item["price"])
        lines.append(Line(60, height, f"{item['quantity']} × {item['name']}"))
        lines.append(Line(440, height, f"{price * item['quantity']:,.2f} €"))
        height -= 18
    return [*lines, Line(60, height - 12, "Total", 12), Line(440, height - 12, f"{total:,.2f} €", 12)]


def ask(method, url, key, data=None):
    """One request; `data` is a PDF."""
    headers = {"authorization": f"Bearer {key}"}
    if data is not None:
        headers["content-type"] = "application/pdf"
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=30) as response:
        return response.read()
