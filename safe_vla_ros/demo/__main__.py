"""`python -m safe_vla_ros.demo`: drive the simulated robot and sum up."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from safe_vla_ros.demo.demo_summary import figures_table, make_summary, success_table, write_summary
from safe_vla_ros.demo.display import Display
from safe_vla_ros.demo.options import parse_options
from safe_vla_ros.demo.session import Session, run_session, write_films
from safe_vla_ros.errors import SafeVlaError

if TYPE_CHECKING:
    from types import FrameType

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run the demo.

    Args:
        arguments: Command line without the program's name; None for the real one.

    Returns:
        Exit status: 0 at the end, 1 after an error or when something could not be recorded or
        written, 130 when interrupted.
    """
    options = parse_options(arguments)
    # SIGINT, too: a shell that starts it in the background has it ignored.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    session, status = Session(), 0
    display = Display(options.tasks, options.methods, options.episodes)
    summary_path = options.out / 'summary.json'
    summary_path.unlink(missing_ok=True)
    try:
        with display:
            run_session(options, display, session)
    except (SafeVlaError, OSError) as error:
        display.say(f'error: {error}')
        status = 1
    except KeyboardInterrupt:
        display.say('Interrupted; both processes have ended.')
        status = INTERRUPTED
    if session.episodes:
        summary = make_summary(options, session.episodes, session.diagnostics, complete=status == 0)
        display.console.print(success_table(summary))
        display.console.print(figures_table(summary))
        display.say(summary['attribution'])
        recorded = options.record is not None and not session.troubles
        # First what matters most: on a full disk the videos would take its place.
        try:
            write_summary(summary, summary_path)
            display.say(f'Wrote {summary_path}')
        except OSError as error:
            session.troubles.append(f'{summary_path} cannot be written: {error}')
        if options.video and status == 0:
            display.say('Writing videos ...')
            for name in write_films(options, session):
                display.say(f'Wrote {name}')
        if recorded:
            display.say(f'Recorded {options.record}')
        for trouble in session.troubles:
            display.say(f'error: {trouble}')
    return status or int(bool(session.troubles))


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == '__main__':
    sys.exit(main())
