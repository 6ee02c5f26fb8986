"""`spherescore up` as a person starts it: one machine with a deployed run, until it is stopped."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.services import Certificates

PATIENCE = 240


@pytest.mark.long
def test_a_machine_comes_up_with_a_deployed_run_and_goes_with_all_its_children(
    tmp_path, table, write_config
):
    command = [sys.executable, "-m", "flows.cli.main", "up", str(tmp_path / "machine")]
    command += ["--deploy", write_config(table), "--workers", "1"]
    command += ["--port", "0", "--scheduler-port", "0", "--dashboard-port", "0"]
    errors = (tmp_path / "errors").open("w+")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    children: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("other terminals"):
                break
        said = "".join(lines)
        errors.seek(0)
        assert process.poll() is None, said + errors.read()
        children = psutil.Process(process.pid).children(recursive=True)
        assert machine_is_guarded(tmp_path / "machine", tmp_path / "stranger")
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        errors.close()
    assert second.returncode == 44
    assert f"in use by another `spherescore up`, process {process.pid} of" in second.stderr
    assert "NOT OK" not in said
    assert len(re.findall(r"^made +deployment ", said, re.M)) == 10
    assert re.search(r"^ok +a scheduled run: happened", said, re.M)
    assert len(children) >= 4
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []


def machine_is_guarded(state: Path, stranger: Path) -> bool:
    """What another shell reads leads to the Dask workers, and other certificates do not."""
    assert (state / "environment").stat().st_mode & 0o077 == 0
    shell = f'. {state}/environment && exec "{sys.executable}" -c "$0"'
    ask = (
        "from pathlib import Path\n"
        "from flows.cluster.remote import placed, remote_client\n"
        "from flows.config.schema import Cluster\n"
        "with remote_client(placed(Cluster(kind='address')), Path('{}')) as client:\n"
        "    print(client.scheduler.address[:6], client.submit(abs, -3).result())\n"
    ).format(state / "seen")
    plain = {name: at for name, at in os.environ.items() if "DASK" not in name}
    said = subprocess.run(["sh", "-c", shell, ask], env=plain, capture_output=True, text=True)
    assert said.stdout == "tls:// 3\n", said.stderr
    others = Certificates(stranger).table
    tls = f"kind='address', tls=Tls(ca='{others['ca']}', cert='{others['cert']}',"
    ask = ask.replace("kind='address'", f"{tls} key='{others['key']}')")
    ask = ask.replace("import Cluster", "import Cluster, Tls")
    refused = subprocess.run(["sh", "-c", shell, ask], env=plain, capture_output=True, text=True)
    return "do not trust each other" in refused.stderr
