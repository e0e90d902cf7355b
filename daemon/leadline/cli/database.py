"""`db sql` and `db migrate`: for who looks after the database by hand."""

from cyclopts import App

from leadline import config as configuration
from leadline.cli import terminal
from leadline.cli.daemon import Placed
from leadline.cli.jobs import Json

db = App(name="db", help="Bring the database up to date, or print its schema.")


@db.command
def sql() -> None:
    """Print every migration as one script, to be read or to be applied by psql --single-transaction."""
    from leadline import main

    terminal.say(main.schema_sql().rstrip())


@db.command
def migrate(*, place: Placed, json: Json = False) -> None:
    """Bring the database up to date without starting the daemon, which does so by itself at each start."""
    from leadline import main

    config = configuration.load(place.config)
    applied = main.migrate(config, state_dir=configuration.state_dir(place.state_dir))
    if json:
        for name in applied:
            terminal.json_line({"migration": name})
    elif applied:
        terminal.say(f"Applied {', '.join(applied)}.")
    else:
        terminal.say("The database is up to date.")
