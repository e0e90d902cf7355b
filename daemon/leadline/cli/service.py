"""`serve`: the daemon itself, in the foreground, as a service manager wants it."""

from leadline import config as configuration
from leadline.cli.daemon import Placed


def serve(*, place: Placed) -> int:
    """Run the daemon in the foreground until it is told to stop; SIGTERM drains it, SIGHUP reads the TOML again."""
    config = configuration.load(place.config)
    state_dir = configuration.state_dir(place.state_dir)
    runtime_dir = configuration.runtime_dir(place.runtime_dir, state_dir)

    from leadline import main  # everything that runs the daemon, which no other command pays for

    main.endpoints_of(config)  # what is wrong with a provider's module is wrong with the configuration
    return main.serve(config, config_path=place.config, state_dir=state_dir, runtime_dir=runtime_dir)
