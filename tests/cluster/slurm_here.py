"""A real Slurm on this machine, without systemd: munged, slurmctld, and two nodes, each a slurmd (Debian: slurm-wlm, munge).

`python tests/cluster/slurm_here.py COMMAND...` runs a command beside such a cluster, and ends the cluster with it.
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
NODES = ("one", "two")
CPUS = 3  # of each node, whatever this machine has
CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=1,sched_interval=5
SlurmdTimeout=10
KillWait=20
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus}
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def missing():
    """The programs that are not installed."""
    return [name for name in PROGRAMS if not _program(name)]


def _program(name):
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class Slurm:
    """A cluster that is running. Commands find it by SLURM_CONF, which `environment` holds."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # a short path, for the socket
        self.folder.chmod(0o755)
        (self.folder / "state").mkdir()
        conf = self.folder / "slurm.conf"
        host = socket.gethostname().partition(".")[0]
        conf.write_text(CONF.format(folder=self.folder, host=host, user=getpass.getuser(), ports=_free(3), cpus=CPUS))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self.environment = {**os.environ, "SLURM_CONF": str(conf)}
        self.processes = {}
        try:
            files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "seed"}
            words = [f"--{name}={self.folder / file}" for name, file in files.items()]
            self._start("munged", "--foreground", "--force", *words)
            _until((self.folder / "munge.socket").exists)
            self._start("slurmctld", "-D")
            for node in NODES:
                self.start_node(node)
            self.until_up()
        except BaseException:
            self.stop()
            raise

    def _start(self, program, *words, name=""):
        with (self.folder / f"{name or program}.out").open("a") as out:
            self.processes[name or program] = subprocess.Popen(
                [_program(program), *words], env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip

    def start_node(self, node):
        self._start("slurmd", "-D", "-N", node, name=node)

    def start_node_again(self, node):
        """Starts the daemon of a node, which ends what still runs there.

        Jobs that wait are held meanwhile: what Slurm starts on the node at once is killed with the earlier steps of its job,
        as both have the same number.
        """
        waiting = self.ask("squeue", "--noheader", "--array", "--states=pending", "--format=%i %A").split()
        for job in waiting[::2]:
            self.tell("scontrol", "hold", job)
        steps = [f"slurmstepd: [{number}." for number in waiting[1::2]]
        self.start_node(node)
        _until(lambda: not any(step in name for _, name in _processes() for step in steps))
        for job in waiting[::2]:
            self.tell("scontrol", "release", job)

    def kill_node(self, node):
        """Kills the daemon of a node; what runs on the node goes on."""
        process = self.processes.pop(node)
        process.kill()
        process.wait()

    def cut_power(self, node):
        """Kills the daemon of a node and all that runs on the node."""
        jobs = self.ask("squeue", "--noheader", "--states=running", f"--nodelist={node}", "--format=%A").split()
        self.kill_node(node)
        steps = [pid for pid, name in _processes() if any(f"slurmstepd: [{job}." in name for job in jobs)]
        doomed = [*steps, *(child for step in steps for child in _below(step))]
        for pid in doomed:  # first those that would report the end of the others
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def until_up(self):
        """Waits until all nodes take jobs."""
        _until(lambda: self.ask("sinfo", "--noheader", "--format=%D", "--states=idle,mixed,alloc").split() == ["2"])

    def ask(self, *words):
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False).stdout

    def tell(self, *words):
        subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True)

    def state(self, job):
        """State and node of a job: ("RUNNING", "one")."""
        said = self.ask("squeue", "--noheader", "--array", "--states=all", "--format=%T %N", f"--jobs={job}").split()
        return tuple([*said, "", ""][:2])

    def stop(self):
        if "slurmctld" in self.processes:
            self.ask("scancel", f"--user={getpass.getuser()}")
            _until(lambda: not self.ask("squeue", "--noheader"), fail=False)
        for process in reversed(self.processes.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in _with_environment(f"SLURM_CONF={self.folder}/slurm.conf"):  # steps of a node whose daemon was killed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def _processes():
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(path.name), (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def _with_environment(variable):
    """The other processes that have this variable in the environment with which they were started."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(path.name) != os.getpid() and variable.encode() in (path / "environ").read_bytes().split(b"\0"):
                yield int(path.name)


def _below(pid):
    """The processes that a process has started, and those that they have."""
    found = []
    with contextlib.suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found += [child, *_below(child)]
    return found


def _free(count):
    """So many free ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _until(condition, seconds=60, fail=True):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            if fail:
                raise TimeoutError("Slurm does not start")
            return
        time.sleep(0.2)


if __name__ == "__main__":
    slurm = Slurm()
    try:
        ended = subprocess.run(sys.argv[1:], env=slurm.environment, check=False)
    finally:
        slurm.stop()
    sys.exit(ended.returncode)
