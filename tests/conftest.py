"""What holds for all tests."""

import signal


def pytest_configure() -> None:
    """Let the processes that tests start take Ctrl-C, though a shell that started us in the background has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
