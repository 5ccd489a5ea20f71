"""Trains the points of a sweep as a job array of Slurm, through submitit.

Slurm itself knows what is submitted: the folder of a job's batch script holds the identities of the points in their order. So
nothing is submitted twice, whoever ended the command that submitted it, and when. A point's run is in the tracking store.
"""

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from filelock import FileLock

from aelab.errors import UserError, did_you_mean, shown, similar
from aelab.files import read_small_file
from aelab.tracking import Store, slurm_job
from aelab.workflows.launching import Job, find, train_job, wait_for_writer
from aelab.workflows.planning import opener
from aelab.workflows.signals import Stopped, handled_by

log = logging.getLogger(__name__)

OURS = {
    "array", "chdir", "error", "input", "job-name", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "parsable",
    "requeue", "no-requeue", "test-only", "wait", "wrap",
}  # fmt: skip  # options of sbatch that are set here
POINTS = "points.json"  # in the folder of a submission: its store and the identities of its points
SIGNAL = "USR1@120"  # two minutes before the time limit, for a step and a checkpoint
ENDED = {
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "it was cancelled in Slurm",
    "COMPLETED": "its Slurm job ended",
    "DEADLINE": "its deadline in Slurm has passed",
    "FAILED": "its Slurm job failed",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "it had more memory than its Slurm job may have; give it more: --slurm mem=16G",
    "PREEMPTED": "another Slurm job took its place",
    "REVOKED": "its Slurm job was revoked",
    "TIMEOUT": "it was stopped by its time limit in Slurm",
}  # the states of a job that does not continue, in words
SHORTEST, LONGEST = 1.0, 16.0  # seconds between two questions to Slurm, the first and the later ones


@dataclass(frozen=True)
class Task:
    """A Slurm job: its id such as 123_4, its state with the reason for which it waits, and the folder of its batch script."""

    id: str
    state: str
    reason: str
    folder: Path

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def check(options: Mapping[str, str]) -> None:
    """Raises UserError if no job can be submitted with these options of sbatch, which Slurm itself checks."""
    if not shutil.which("sbatch"):
        raise UserError("--launcher slurm: Slurm is not on this machine; there is no sbatch.", code=2)
    if importlib.util.find_spec("submitit") is None:
        raise UserError(
            "--launcher slurm needs the package submitit.", "Install it: pip install 'aelab[slurm]'", code=2
        )
    for name in options:
        if _name(name) in OURS:
            raise UserError(f"--slurm {name}=...: aelab sets this option of sbatch itself.", code=2)
    words = [f"--{_name(name)}={value}" for name, value in options.items()]
    asked = _ask("sbatch", "--test-only", *words, "--wrap=true")
    if asked.returncode:
        raise UserError(f"--slurm: {_complaint(asked.stderr)}.", *_advice(asked.stderr, options), code=2)


def _name(option: str) -> str:
    return option.strip().lstrip("-").replace("_", "-")


def _ask(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


def _complaint(stderr: str) -> str:
    """The first thing that a command of Slurm complains of."""
    line = next((line for line in stderr.splitlines() if line.strip()), "no reason given")
    for before in ("sbatch: ", "squeue: ", "scontrol: ", "error: ", "fatal: ", "allocation failure: "):
        line = line.removeprefix(before)
    return line.strip().rstrip(".")


def _advice(stderr: str, options: Mapping[str, str]) -> list[str]:
    """What to type instead, where that is known."""
    if "partition" in stderr and "partition" in options:
        known = sorted(set(_ask("sinfo", "--noheader", "--format=%R").stdout.split()))
        return [f"There are: {', '.join(known[:20])}.{did_you_mean(similar(options['partition'], known))}"]
    if "--time" in stderr:
        return ["Write it in minutes, or as hours:minutes:seconds or days-hours: time=60, time=1:30:00, time=2-12"]
    if "node configuration" in stderr:
        return ["No node that is up has what these options ask for. See: sinfo"]
    if "resolve_ctls" in stderr or "contact slurm" in stderr:
        return ["No controller of Slurm answers. See: sinfo"]
    if "unrecognized option" in stderr:
        return ["Options are those of sbatch, by their long names. See: man sbatch"]
    return []


def run_all(
    jobs: Sequence[Job], at_once: int, store: Store, data_dir: Path | None, options: Mapping[str, str]
) -> list[str]:
    """Trains the jobs in Slurm, and returns why each failed, or an empty string; see `launching.run_all`.

    One that is queued or running in Slurm is waited for, and not submitted again. Raises UserError if a signal asks this
    process to leave; the jobs then go on in Slurm.
    """
    if not jobs:
        return []
    root = store.database.absolute().parent if store.database else Path.cwd()
    folder = root / "slurm" / store.get(jobs[0].parent).name
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    with handled_by(catch):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / ".lock"):  # another sweep may have the same points
            tasks = _queued(store)
            new = [job for job in jobs if job.identity not in tasks]
            if len(new) < len(jobs):
                log.info(f"{_points(len(jobs) - len(new))} queued or running in Slurm already")
            if new:
                for job in new:
                    _settle(job, store)
                tasks |= _submit(new, at_once, store, data_dir, options, folder)
                log.info(f"{_points(len(new))} submitted to Slurm, {at_once} at once; their logs are in {folder}")
        return _collect(jobs, tasks, store, caught)


def _points(count: int) -> str:
    return "1 point is" if count == 1 else f"{count} points are"


def _tasks() -> dict[str, Task]:
    """The user's jobs that Slurm knows, by their ids, with those that ended some minutes ago. Raises UserError without Slurm."""
    asked = _ask("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%r|%o")
    if asked.returncode:
        raise UserError(f"Slurm does not answer: {_complaint(asked.stderr)}.")
    found = {}
    for line in asked.stdout.splitlines():
        number, state, reason, script = line.split("|", 3)
        found[number] = Task(number, state, reason, Path(script).parent)
    return found


def _queued(store: Store) -> dict[str, Task]:
    """The jobs that are queued or running in Slurm for this store, by the identities of their points."""
    points: dict[Path, list[str]] = {}
    found = {}
    for task in _tasks().values():
        if task.ended:
            continue
        if task.folder not in points:
            try:
                submission = json.loads(read_small_file(task.folder / POINTS))
                points[task.folder] = submission["points"] if submission["store"] == _digest(store) else []
            except (OSError, ValueError):  # no job of ours
                points[task.folder] = []
        place = int(task.id.partition("_")[2] or 0)
        if place < len(points[task.folder]):
            found[points[task.folder][place]] = task
    return found


def _digest(store: Store) -> str:
    return hashlib.sha256(_address(store).encode()).hexdigest()


def _address(store: Store) -> str:
    return f"sqlite:///{store.database.absolute()}" if store.database else store.uri


def _log_file(job: Job, folder: Path) -> Path:
    return folder / f"{job.name}{job.identity[:6]}.log"


def _submit(
    jobs: Sequence[Job], at_once: int, store: Store, data_dir: Path | None, options: Mapping[str, str], folder: Path
) -> dict[str, Task]:
    """Submits the jobs as one array, in a new folder. Raises UserError if Slurm does not take it."""
    from submitit import SlurmExecutor

    numbers = (int(each.name) for each in folder.iterdir() if each.name.isdigit())
    submission = folder / str(1 + max(numbers, default=0))
    submission.mkdir(mode=0o700)  # the address of the store may hold a password
    content = {"store": _digest(store), "points": [job.identity for job in jobs]}
    (submission / POINTS).write_text(json.dumps(content), encoding="utf-8")
    given = {_name(name): value for name, value in options.items()}
    cpus = given.get("cpus-per-task")
    executor = SlurmExecutor(
        submission, python=f"{shlex.quote(sys.executable)} -P"
    )  # -P: nothing of the working folder
    executor.update_parameters(
        job_name=f"aelab-{jobs[0].recipe_file.name}",
        time=None,  # submitit's is five minutes
        wckey=None,
        array_parallelism=at_once,
        stderr_to_stdout=True,
        srun_args=[f"--cpus-per-task={cpus}"] if cpus else None,  # srun does not take it from sbatch
        additional_parameters={"signal": SIGNAL, "requeue": True, **given},
    )
    data = data_dir.absolute() if data_dir else None
    try:
        with contextlib.redirect_stderr(io.StringIO()), executor.batch():  # it prints what sbatch complains of
            submitted = [executor.submit(train_point, job, _address(store), store.offline, data) for job in jobs]
    except RuntimeError as error:
        shutil.rmtree(submission, ignore_errors=True)
        raise UserError(f"Slurm does not take the points: {_complaint(str(error))}.") from error
    for job, each in zip(jobs, submitted, strict=True):
        link = _log_file(job, folder)
        link.unlink(missing_ok=True)
        link.symlink_to(each.paths.stdout.relative_to(folder))
    return {
        job.identity: Task(each.job_id, "PENDING", "", submission) for job, each in zip(jobs, submitted, strict=True)
    }


def _collect(jobs: Sequence[Job], tasks: Mapping[str, Task], store: Store, caught: Sequence[int]) -> list[str]:
    """Waits until Slurm has ended all jobs. Returns why each failed, or an empty string; raises UserError if told to leave."""
    why: dict[str, str] = {}
    left = {job.identity: job for job in jobs}
    pause, said = SHORTEST, ""
    while left:
        now = _answered()
        if now is not None:
            for identity, job in list(left.items()):
                task = now.get(tasks[identity].id)
                if task and not task.ended:
                    continue
                why[identity] = _outcome(job, task or tasks[identity], store)
                if why[identity]:
                    log.warning(UserError(*f"{job.label}: {why[identity]}".split("\n")))
                else:
                    log.info(f"{job.label}  is done")
                del left[identity]
            line = _in_a_line([now[tasks[identity].id] for identity in left], len(why))
            if left and line != said:
                log.info(line)
                pause, said = SHORTEST, line
        end = time.monotonic() + pause
        pause = min(2 * pause, LONGEST)
        while left and not caught and time.monotonic() < end:
            time.sleep(0.2)
        if left and caught:
            ids = " ".join(sorted({tasks[identity].id.partition("_")[0] for identity in left}))
            problem = UserError(
                f"{_points(len(left))} queued or running in Slurm, also without this command.",
                f"Type the same command again to collect. To cancel: scancel {ids}",
            )
            problem.code = 130 if caught[0] == signal.SIGINT else 143
            raise problem
    return [why[job.identity] for job in jobs]


def _answered() -> dict[str, Task] | None:
    """What `_tasks` finds; None, with a warning, while Slurm does not answer."""
    try:
        return _tasks()
    except UserError as problem:
        log.warning(problem)
        return None


def _in_a_line(tasks: Sequence[Task], done: int) -> str:
    """How many points are running, queued and done; queued ones with Slurm's reasons, but for the limit of the array itself."""
    queued = [task for task in tasks if task.state == "PENDING"]
    reasons = sorted({task.reason for task in queued} - {"None", "JobArrayTaskLimit"})
    why = f" ({', '.join(reasons)})" if reasons else ""
    return f"{len(tasks) - len(queued)} running, {len(queued)} queued{why}, {done} done"


def _outcome(job: Job, task: Task, store: Store) -> str:
    """Why a job whose Slurm job has ended failed; an empty string if its run has finished."""
    info = find(job, store)
    if info and info.status == "FINISHED":
        return ""
    _settle(job, store)
    ended = ENDED.get(task.state, "its Slurm job ended")
    said = _returned(task) if task.state in ("COMPLETED", "FAILED", "PENDING") else ""
    return f"{(said or ended).rstrip('.')}.\nIts log is {_log_file(job, task.folder.parent)}"


def _settle(job: Job, store: Store) -> None:
    """Marks the run of a job as FAILED if it counts as running and the Slurm job that trained it has ended."""
    info = find(job, store)
    if not info or info.status != "RUNNING" or not (number := info.tags.get("aelab.slurm_job")):
        return
    asked = _ask("squeue", "--noheader", "--array", "--states=all", "--format=%T", f"--jobs={number}")
    state = asked.stdout.strip()
    if state in ENDED or (not state and (asked.returncode == 0 or "Invalid job id" in asked.stderr)):
        store.mark_lost(info, ENDED.get(state, "its Slurm job ended"))


def _returned(task: Task) -> str:
    """What `train_point` has returned, empty if it has not."""
    from submitit import SlurmJob

    job: SlurmJob[str] = SlurmJob(task.folder, task.id)
    if not job.paths.result_pickle.exists():
        return ""
    try:
        return job.result()
    except RuntimeError as error:  # an error that is none of the training's
        return next((line for line in reversed(str(error).splitlines()) if "Error" in line), "")


def train_point(job: Job, address: str, offline: bool, data_dir: Path | None) -> str:
    """The main function of a Slurm job: trains a job, or resumes its run. Returns why it failed, or an empty string.

    A signal ahead of the time limit saves the run, and puts the Slurm job back into the queue.
    """
    for number in (signal.SIGTERM, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)  # submitit ignores them; a run handles them itself
    if "OMP_NUM_THREADS" not in os.environ:  # as many threads on each node, for the same bits
        torch.set_num_threads(int(os.environ.get("SLURM_CPUS_PER_TASK", "1")))
    _log_lines()
    try:
        store = Store(address, warn=log.warning)
        store.offline = offline
        _wait_for_turn(job, store)
        return train_job(job, store, opener(data_dir), data_dir)
    except Stopped as stopped:
        if stopped.number != signal.SIGUSR1:
            return str(stopped)
        asked = _ask("scontrol", "requeue", slurm_job())
        if asked.returncode:
            return f"{str(stopped).rstrip('.')}; Slurm does not start it again: {_complaint(asked.stderr)}."
        log.info("saved ahead of the time limit; Slurm starts this job again")
        return ""
    except UserError as problem:
        return str(problem)


def _wait_for_turn(job: Job, store: Store) -> None:
    """Waits while another process writes the run of a job, and takes it over from an earlier process of this Slurm job.

    Where only the daemon of a node has died, Slurm starts the job again on another node while its first process goes on.
    """
    wait_for_writer(job, store)
    info = find(job, store)
    if info and info.status == "RUNNING" and info.tags.get("aelab.slurm_job") == slurm_job():
        store.mark_lost(info, "Slurm started its job again")


def _log_lines() -> None:
    """Prints what is logged to the log of the Slurm job, with the time."""

    class Line(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            warning = "warning: " if record.levelno >= logging.WARNING else ""
            return f"{self.formatTime(record, '%Y-%m-%d %H:%M:%S')}  {warning}{shown(record)}"

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Line())
    logger = logging.getLogger("aelab")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
