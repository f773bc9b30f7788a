"""A Ray cluster of two nodes of one CPU each, on loopback alone: a program that ends when its stdin does.

It prints the address of its head and the folder in which its processes run; each node has a cache of its own.
A line that it reads ends the second node as if its machine were lost, and the next brings another.
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
        os.chdir(folder)
        os.environ["RAY_TMPDIR"] = folder  # and not where `address: auto` finds the Ray that somebody uses
        from ray.cluster_utils import Cluster

        def node(name: str) -> dict:
            env = {"STORYFORGE_CACHE": os.path.join(folder, name)}
            few = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
            return {**few, "env_vars": env}

        cluster = Cluster(initialize_head=True, head_node_args=node("first"))
        try:
            second = cluster.add_node(**node("second"))
            print(cluster.address, folder, flush=True)
            for _ in sys.stdin:
                if second:
                    cluster.remove_node(second, allow_graceful=False)
                second = None if second else cluster.add_node(**node("third"))
                print("there" if second else "lost", flush=True)
        finally:
            cluster.shutdown()


@contextmanager
def started(**env: str) -> Iterator[subprocess.Popen]:
    """The program, with what it prints as `address` and `folder`. Workers import the tests' `tasks`."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        [sys.executable, __file__], env={**os.environ, **LOOPBACK, "PYTHONPATH": path, **env}, **streams
    )
    try:
        process.address, _, process.folder = process.stdout.readline().strip().partition(" ")
        assert process.folder, "Ray did not start"
        yield process
    finally:
        process.communicate(timeout=60)


if __name__ == "__main__":
    main()
