"""`completion`: have the shell complete this command."""

from typing import Annotated, Literal

from cyclopts import App, Parameter

from leadline.cli import terminal

completion = App(name="completion", help="Have the shell complete this command.")

Shell = Annotated[Literal["bash", "zsh", "fish"] | None, Parameter(help="The shell [the one that runs this].")]


@completion.command
def install(*, shell: Shell = None) -> None:
    """Install completion for the present user."""
    from leadline.cli.app import app

    path = app.install_completion(shell=shell)
    terminal.say(f"{path} completes `leadline` in every new shell.")


@completion.command
def show(*, shell: Shell = None) -> None:
    """Print the script that completes this command, to be installed by other means."""
    from leadline.cli.app import app

    terminal.say(app.generate_completion(shell=shell))
