"""Being asked to stop."""

import os
import signal
import threading
import time


def stop_with(parent: int) -> None:
    """Asks this process to stop, by SIGTERM, when its parent is gone: nobody would look after it."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


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
