"""The load of the machine during a training, under MLflow's own names: on request, by MLflow's own variable.

    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=true aelab train vae

MLflow's own thread sends each point itself and ends at the first outage; here they go the way of all metrics.
"""

import importlib.util
import threading
from collections.abc import Callable, Mapping
from typing import Any

from mlflow.environment_variables import (
    MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING,
    MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING,
    MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL,
)

from aelab.errors import UserError

SECONDS = 10.0  # between two samples, as in MLflow


def wanted() -> bool:
    """Whether system metrics are asked for. Raises UserError if the package for them is missing."""
    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return False
    if not importlib.util.find_spec("psutil"):
        raise UserError(
            "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is set, and psutil, which measures them, is missing.",
            "Install it: pip install psutil, and nvidia-ml-py for a GPU of NVIDIA's; both are in the extra aelab[system]",
            code=2,
        )
    return True


class SystemMonitor:
    """A thread that measures CPU, memory, disk, network and GPU, and calls `log(values, step)` with means over its samples."""

    def __init__(
        self, log: Callable[[Mapping[str, float], int], Any], first_step: int, warn: Callable[[str], None]
    ) -> None:
        self._log, self._step, self._warn = log, first_step, warn
        self._monitors = _monitors()
        self._seconds = MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL.get() or SECONDS
        self._samples = MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING.get() or 1
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="aelab-system-metrics")
        self._thread.start()

    def stop(self) -> None:
        """Logs what was measured last, and ends the thread."""
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                self._log(self._measure(), self._step)
                self._step += 1
        except Exception as error:  # noqa: BLE001  # psutil's and the drivers', which have no common base
            self._warn(f"system metrics end here: {str(error) or repr(error)}")

    def _measure(self) -> dict[str, float]:
        for _ in range(self._samples):
            for monitor in self._monitors:
                monitor.collect_metrics()
            if self._stopping.wait(self._seconds):
                break
        values: dict[str, float] = {}
        for monitor in self._monitors:
            values |= {f"system/{key}": float(value) for key, value in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        return values


def _monitors() -> list[Any]:
    """MLflow's monitors of what this machine has."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    found: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for gpu in (GPUMonitor, ROCMMonitor):
        try:
            found.append(gpu())
        except Exception:  # noqa: BLE001  # of the packages and drivers that are not there
            continue
        break
    return found
