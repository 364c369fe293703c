"""``python -m fastoci`` is the program ``fastoci``."""

import signal

from fastoci.cli import standard_streams


def main() -> None:
    """Run the program. Until it is loaded an interrupt just ends it: there is nothing yet to let go of, or to say."""
    standard_streams.open_missing()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not one that whoever started this ignores
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from fastoci.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
