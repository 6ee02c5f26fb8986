"""`spherescore up` as a person starts it: one machine with a deployed run, until it is stopped."""

import re
import signal
import subprocess
import sys

import psutil

PATIENCE = 240


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
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        errors.close()
    assert "NOT OK" not in said
    assert len(re.findall(r"^made +deployment ", said, re.M)) == 9
    assert re.search(r"^ok +a scheduled run: happened", said, re.M)
    assert len(children) >= 4
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
