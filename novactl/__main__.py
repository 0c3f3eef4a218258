"""`novactl` and `python -m novactl`. The version is told without importing anything but the standard library."""

import gc
import os
import sys


def main() -> None:
    _fill_missing()
    if sys.argv[1:] in (["--version"], ["-V"]):
        from novactl import __version__

        try:
            print(f"novactl {__version__}", flush=True)
            return
        except OSError:
            pass                                              # `run` says what is wrong
    _end_at_ctrl_c()
    gc.set_threshold(100_000)                                 # importing makes much and drops nothing: 4 ms of a list's 70
    from novactl.cli.run import run

    sys.exit(run(sys.argv[1:]))


def _end_at_ctrl_c() -> None:
    """Until `run` can say something of it: before, there is nothing to leave, and a traceback tells nobody anything."""
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _fill_missing() -> None:
    """Standard streams that the caller closed become /dev/null: else the next file opened would take their places."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115 - the lowest free descriptor: its own
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


if __name__ == "__main__":
    main()
