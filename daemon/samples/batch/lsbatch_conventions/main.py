"""What was written for the package lsbatch, by its conventions alone. It runs here as it is.

Its `src` folder is the folder that is uploaded, its settings are set with the batch job.
"""

import traceback

from helper import LS, MXUnauthorizedDBAccess


def main():
    try:
        LS.log.info("Started", {"Region": LS.settings.region})
        LS.log.debug("Debug Log")
        try:
            leads = LS.db.execute_DB_query("SELECT id, data FROM leads", multi=False)
        except MXUnauthorizedDBAccess as err:
            LS.log.error(type(err).__name__, str(err))
            LS.email.send_email_notification("Failure", "No report", "The database is not open to us", isHTML=False)
            return
        LS.log.info("Leads", {"Count": len(leads)})
        LS.email.send_email_notification("Success", "Report", "<b>" + str(len(leads)) + "</b> leads", isHTML=True)
    except Exception as err:
        LS.log.fatal(type(err).__name__, traceback.format_exc())
        raise
