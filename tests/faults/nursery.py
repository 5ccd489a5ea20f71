"""Starts `aelab` many times from one process that has imported everything already: a fork takes milliseconds, an import seconds.

Reads a JSON object a line, {"argv", "cwd", "env", "out", "patch"}, and answers with the child's pid; {"wait": pid} is answered
with its exit code, negative for a signal. Each child is a whole process of its own, to be killed. `patch` is Python that the
child runs first.
"""

import json
import os
import resource
import signal
import sys
import time
import traceback

import mlflow
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import sklearn.datasets
import sklearn.decomposition  # noqa: F401
import torch._dynamo  # noqa: F401  # making an optimizer imports it

import aelab.cli
import aelab.cli.console
import aelab.tracking
import aelab.training.saving
import aelab.training.trainer
import aelab.workflows.comparing
import aelab.workflows.drawing
import aelab.workflows.evaluating
import aelab.workflows.exporting
import aelab.workflows.following
import aelab.workflows.launching
import aelab.workflows.listing
import aelab.workflows.resuming
import aelab.workflows.starting
import aelab.workflows.sweeping


def child(order):
    os.setsid()
    os.chdir(order["cwd"])
    os.environ.update(order["env"])
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        place = os.devnull if number == 0 else f"{order['out']}.{'out' if number == 1 else 'err'}"
        os.dup2(os.open(place, flags | (os.O_CREAT if number else 0)), number)
    sys.argv = ["aelab", *order["argv"]]
    sys.stdin = open(0, closefd=False)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 1
    try:
        exec(
            order["patch"], {"os": os, "signal": signal, "time": time, "aelab": aelab, "resource": resource, "sys": sys}
        )
        aelab.cli.main()
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def main():
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = wait(order["wait"], order["seconds"])
        else:
            sys.stdout.flush()
            answer = os.fork()
            if answer == 0:
                child(order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    print(json.dumps("ready"), flush=True)
    main()
