"""Being asked to stop."""

import signal
import threading


class StopSignals:
    """Turns SIGTERM and Ctrl-C into a question that the training loop asks after every step."""

    def __init__(self):
        self.asked = False

    def __enter__(self):
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # signals are heard nowhere else
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, *_):
        self.asked = True
