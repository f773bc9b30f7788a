"""A Ray cluster of two nodes of one CPU each, on loopback alone: a program that ends when its stdin does.

It prints the address of its head. A line that it reads ends the second node as if its machine were lost.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Ray listens on 127.0.0.1 instead of everywhere, and reports to nobody. Read while it is imported.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RAY_TMPDIR"] = folder  # and not where `address: auto` finds the Ray that somebody uses
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            second = cluster.add_node(**node)
            print(cluster.address, flush=True)
            for _ in sys.stdin:
                cluster.remove_node(second, allow_graceful=False)
                print("lost", flush=True)
        finally:
            cluster.shutdown()


@contextmanager
def started(**env: str) -> Iterator[subprocess.Popen]:
    """The program; its `address` is that of the head. Workers import the tests' `tasks`."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        [sys.executable, __file__], env={**os.environ, **LOOPBACK, "PYTHONPATH": path, **env}, **streams
    )
    try:
        process.address = process.stdout.readline().strip()
        assert process.address, "Ray did not start"
        yield process
    finally:
        process.communicate(timeout=60)


if __name__ == "__main__":
    main()
