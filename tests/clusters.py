"""Ray clusters on the loopback, whose nodes have separate processes."""

import contextlib
import os
import signal
from pathlib import Path

# A node needs little: trials are processes that Ray only places.
SMALL = {'object_store_memory': 80 * 2**20, 'include_dashboard': False}
QUIET = {
  'RAY_USAGE_STATS_ENABLED': '0',
  'RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO': '0',
  'RAY_enable_metrics_collection': '0',
}


@contextlib.contextmanager
def cluster():
  """Yields a cluster with a head that runs no trials."""
  os.environ.update(QUIET)
  from ray.cluster_utils import Cluster

  ray_cluster = Cluster(
    initialize_head=True, head_node_args={'num_cpus': 0, **SMALL}
  )
  try:
    yield ray_cluster
  finally:
    ray_cluster.shutdown()


def add_node(ray_cluster, **resources):
  """Adds a node with these resources, such as chip=2."""
  for _ in range(5):
    try:
      return ray_cluster.add_node(num_cpus=0, resources=resources, **SMALL)
    except Exception as error:
      # Ray waits 30 seconds, which a busy machine may need.
      if 'timed out during startup' not in str(error):
        raise
  raise TimeoutError('Ray starts no node')


def _children():
  """Returns the children of each process."""
  found = {}
  for file in Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError):
      parent = int(file.read_text().rpartition(')')[2].split()[1])
      found.setdefault(parent, []).append(int(file.parent.name))
  return found


def processes(node):
  """Returns the processes of a node, those of its trials included."""
  children = _children()
  found = [
    started.process.pid
    for processes in node.all_processes.values()
    for started in processes
  ]
  for pid in found:
    found += children.get(pid, [])
  return found


def kill_node(node):
  """Kills all processes of a node at once, as a power cut does."""
  pids = processes(node)
  for pid in pids:
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, signal.SIGKILL)
  return pids
