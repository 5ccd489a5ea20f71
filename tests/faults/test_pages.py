"""`aelab ui`: the server ends with it, answers this machine's browser alone, and runs no code of the working folder."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from machinery import DIGITS, free_port, until

from aelab.tracking import Store, served


def descendants(pid):
    """All processes that a process has started, and theirs, by id."""
    found = [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [each for number in found for each in descendants(number)]


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, -15), (signal.SIGHUP, -1), (signal.SIGINT, 0), (signal.SIGKILL, -9)],
    ids=lambda v: getattr(v, "name", None),
)
def test_the_server_ends_with_the_program(aelab, here, tally, number, code):
    port = free_port()
    process = aelab.start("ui", "--no-browser", "--port", port)
    until(lambda: "Ctrl-C stops the server" in process.err, 120, process)
    assert answers(port)
    started = descendants(process.pid)
    assert len(started) == 2, "MLflow's command and uvicorn"
    process.kill(number)
    assert process.wait() == code
    until(lambda: not any(map(lives, started)), 30)
    assert not answers(port)
    tally(f"{number.name} to aelab ui")


def test_it_ends_also_where_it_has_not_come_up_yet_or_is_killed_itself(aelab, here, tally):
    process = aelab.start("ui", "--no-browser", "--port", free_port())
    until(lambda: descendants(process.pid), 60, process)
    started = descendants(process.pid)
    process.kill()
    process.wait()
    until(lambda: not any(map(lives, started)), 30)
    process = aelab.start("ui", "--no-browser", "--port", free_port())
    until(lambda: "Ctrl-C stops the server" in process.err, 120, process)
    outer, inner = descendants(process.pid)
    os.kill(outer, signal.SIGKILL)
    assert process.wait() == 0
    until(lambda: not lives(inner), 10)
    tally("server killed, or its parent as it comes up", 2)


EVIL = (
    "10.0.0.1.evil.com|192.168.1.1.evil.com|172.16.0.1.evil.com:{port}|evil.com|10.0.0.1|localhost:{port}.evil.com"
    "|localhost.evil.com|127.0.0.1.evil.com:{port}|0.0.0.0|"
)


def asked(port, path, host, method="GET", body=None, **headers):
    """The status and the text of an answer to a request with this Host."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Host": host, **headers}.items():
        connection.putheader(name, value)
    content = json.dumps(body).encode() if body is not None else b""
    if content:
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(content)))
    connection.endheaders(content or None)
    answer = connection.getresponse()
    return answer.status, answer.read().decode(errors="replace")


def test_the_pages_work_in_a_browser_here_and_answer_no_other_name(aelab, here, tally, monkeypatch):
    monkeypatch.setenv("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "true")
    monkeypatch.setenv("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "*")
    aelab.run("train", "linear", *DIGITS, "--epochs", 1, "--name", "seen")
    store, port = Store(), free_port()
    info = store.find("seen")
    search = {"experiment_ids": [info.experiment_id], "max_results": 10}
    with served(store, port):
        for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
            origin = f"http://{host}"
            status, page = asked(port, "/", host)
            assert status == 200 and "MLflow" in page
            files = re.findall(r'(?:src|href)="\.?/?(static-files/[^"]+\.(?:js|css))"', page)
            assert files
            assert {asked(port, f"/{file}", host, Referer=origin + "/")[0] for file in files} == {200}
            status, text = asked(port, "/ajax-api/2.0/mlflow/runs/search", host, "POST", search, Origin=origin)
            assert status == 200 and "seen" in text
            status, text = asked(port, f"/ajax-api/2.0/mlflow/artifacts/list?run_id={info.id}", host)
            assert status == 200 and "config.json" in text
            status, text = asked(port, f"/get-artifact?path=config.json&run_uuid={info.id}", host)
            assert status == 200 and '"recipe": "linear"' in text
        for host in EVIL.format(port=port).split("|"):
            for path in (
                "/",
                "/ajax-api/2.0/mlflow/experiments/search?max_results=1",
                "/get-artifact?path=x&run_uuid=y",
            ):
                assert asked(port, path, host)[0] in (400, 403), host
        here_host = f"127.0.0.1:{port}"
        for origin in ("http://evil.com", f"http://127.0.0.1.evil.com:{port}", "null"):
            status, _ = asked(port, "/ajax-api/2.0/mlflow/runs/search", here_host, "POST", search, Origin=origin)
            assert status == 403, origin
    tally("request under another name or from another page", 13)


PLANTED = [
    "random", "json", "mlflow", "sitecustomize", "uvicorn", "signal", "typing", "types", "enum", "flask", "torch",
    "tempfile", "multiprocessing", "numpy", "yaml",
]  # fmt: skip


@pytest.fixture
def planted(here):
    """A working folder with modules that leave a mark when they are executed."""
    for name in PLANTED:
        (here / f"{name}.py").write_text(
            f"import os\nos.close(os.open({str(here / 'executed-')!r} + {name!r}, os.O_CREAT))\nraise SystemExit(9)\n"
        )
    yield here
    assert not sorted(path.name for path in here.glob("executed-*"))


def test_the_server_executes_nothing_of_the_working_folder(planted, empty_store, tally):
    shutil.copy(empty_store, planted / "mlflow.db")
    port = free_port()
    with served(Store(), port):
        assert asked(port, "/", f"127.0.0.1:{port}")[0] == 200
    tally("modules in the working folder, with aelab ui", len(PLANTED))


def test_no_command_executes_a_module_of_the_working_folder(planted, tally):
    words = [
        "compare-latent",
        "2",
        "3",
        "--recipe",
        "linear",
        *DIGITS,
        "--max-steps",
        "2",
        "--epochs",
        "1",
        "--jobs",
        "2",
    ]
    for command in ([str(Path(sys.executable).with_name("aelab"))], [sys.executable, "-m", "aelab"]):
        ended = subprocess.run(
            [*command, *words, "--seed", str(len(command))], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    tally("modules in the working folder, with a sweep of processes", 2 * len(PLANTED))
