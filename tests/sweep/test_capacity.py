"""A sweep that no node can run ends with a message; a cluster that can grow is waited for with a line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT

CODE = """
from retemper.core.errors import RetemperError
from retemper.core import output
from retemper.core import ray_capacity as capacity
from retemper.core import ray_session as nodes

output.show()
with nodes.session("cpu", 1):
    import ray
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import ClusterConfig, NodeGroupConfig

    capacity.require({"CPU": 1, "GPU": 0.0}, cluster=False)
    for needs, cluster in (({"CPU": 1, "GPU": 1.0}, False), ({"CPU": 1, "GPU": 1.0}, True), ({"CPU": 9}, True)):
        try:
            capacity.require(needs, cluster=cluster, grace=2.0)
        except RetemperError as error:
            print("REFUSED", error)
    config = ClusterConfig(node_group_configs=[NodeGroupConfig(resources={"CPU": 4, "GPU": 1}, max_count=2)])
    client = GcsClient(address=ray.get_runtime_context().gcs_address)
    client.report_cluster_config(config.SerializeToString())
    capacity.require({"CPU": 1, "GPU": 1.0}, cluster=True, grace=2.0)
    print("WENT ON")
"""


@pytest.mark.hostile("kills")
def test_what_no_node_has() -> None:
    """A real Ray of one core without GPUs; the autoscaler is one by its configuration alone."""
    path = f"{ROOT / 'platform'}{os.pathsep}{ROOT}"
    kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**kept, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("REFUSED") == 3 and done.stdout.rstrip().endswith("WENT ON")
    assert "This machine does not have 1 CPU and 1 GPU" in done.stdout
    assert "waiting 2 s for one to join" in done.stdout and "No node of the Ray cluster has 9 CPU" in done.stdout
    assert "no node has 1 CPU and 1 GPU yet: waiting for one that the cluster can start" in done.stdout
