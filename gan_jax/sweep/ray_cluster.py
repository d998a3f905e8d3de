"""Runs trials on a Ray cluster, on any node with free resources.

A trial is an actor whose constructor starts the run. When a node is lost, Ray
makes the actor again on another node, and the run resumes from its checkpoint,
even while no driver runs. The actor is detached, and its name is the workdir of
the trial: it outlives a killed driver, the next driver finds it by its name,
and a cluster never runs a trial twice.
"""

import importlib.util
import math
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_jax.errors import PREEMPTED, UserError
from gan_jax.sweep.process import ExitStatus, Process

NAMESPACE = 'gan_jax'
RESERVED = 'memory', 'object_store_memory'  # resources of Ray's own kind
# A trial whose driver is lost frees its resources this long after its end.
ABANDONED_SECONDS = 600.0
# A trial that does not answer within this time has no node.
SILENT_SECONDS = 10.0


class HostActor:
  """A run of launch.py on one host.

  Args:
    program: The path of launch.py, relative to `cwd`.
    flags: Its flags.
    workdir: The workdir whose lock to wait for; `` waits for none.
    log: The file for its output.
    cwd: The working folder of the driver. A node that does not have it has a
      copy, made by Ray, which is the working folder of the actor.
  """

  def __init__(
    self, program: str, flags: Sequence[str], workdir: str, log: str, cwd: str
  ):
    self._process = Process(
      [sys.executable, program, *flags],
      workdir,
      Path(log),
      env={**os.environ, 'PYTHONUNBUFFERED': '1'},
      cwd=cwd if os.path.isdir(cwd) else os.getcwd(),
    )


class TrialActor(HostActor):
  """A trial, which runs on all hosts of a TPU slice if it reserves one.

  Args:
    chips: The TPU chips of a host of the slice; None: no slice.
    host: The arguments of `HostActor`.
  """

  def __init__(self, chips: float | None, **host: Any):
    import ray
    import ray.util.tpu

    super().__init__(**host)
    node = ray.get_runtime_context().get_node_id()
    self._place, self._others = f'{os.uname().nodename} {node[:6]}', []
    if chips is not None:
      # Ray gives each host of a slice one unit of a resource with its name.
      name = ray.util.tpu.get_current_pod_name()
      hosts = sum(name in host['Resources'] for host in ray.nodes())
      # (None on a machine without TPUs, where a slice is only declared.)
      hosts = ray.util.tpu.get_current_pod_worker_count() or hosts
      resources = {name: 1, 'TPU': chips}
      other = ray.remote(num_cpus=0, resources=resources)(HostActor)
      for index in range(1, hosts):
        log = f'{host["log"].removesuffix(".txt")}.host{index}.txt'
        self._others.append(other.remote(**{**host, 'workdir': '', 'log': log}))
    self._polled = time.monotonic()
    threading.Thread(target=self._free_if_abandoned, daemon=True).start()

  def _free_if_abandoned(self) -> None:
    import ray

    while True:
      time.sleep(ABANDONED_SECONDS / 10)
      waited = time.monotonic() - self._polled
      if not self._process.is_running() and waited > ABANDONED_SECONDS:
        ray.kill(ray.get_runtime_context().current_actor)

  def poll(self) -> tuple[str, ExitStatus | None]:
    """Returns where the trial runs, and how it ended (None: it runs)."""
    self._polled = time.monotonic()
    return self._place, self._process.poll()

  def stop(self) -> None:
    """Asks the run to save and exit; its other hosts follow it."""
    self._process.stop()


class RayTrial:
  """A trial as the driver sees it."""

  def __init__(self, actor: Any):
    self._actor, self._answer, self._status = actor, None, None
    self._asked, self._stopped = 0.0, None
    self.place = ''

  def poll(self) -> ExitStatus | None:
    """Returns how the trial ended; None: it runs, or waits for a node."""
    import ray

    if self._status is not None:
      return self._status
    if self._answer is None:
      self._answer, self._asked = self._actor.poll.remote(), time.monotonic()
    if not ray.wait([self._answer], timeout=0)[0]:
      if time.monotonic() - self._asked > SILENT_SECONDS:
        self.place = ''  # its node is lost, and it waits for another
      return None
    try:
      self.place, self._status = ray.get(self._answer)
    except ray.exceptions.RayActorError as error:
      line = str(error).strip().splitlines()[-1]
      self._status = ExitStatus(-signal.SIGKILL, line)
    self._answer = None
    if self._status is not None:
      ray.kill(self._actor)
    return self._status

  def stop(self) -> None:
    """Asks the trial to save its state and exit."""
    import ray

    if self.place and self._stopped != self.place:
      self._actor.stop.remote()
      self._stopped = self.place
    elif not self.place and self._status is None:  # it waits for a node
      ray.kill(self._actor)
      self._status = ExitStatus(PREEMPTED, 'not started')

  def kill(self) -> None:
    """Ends the trial at once."""
    import ray

    ray.kill(self._actor)  # the run dies with it
    self._status = ExitStatus(-signal.SIGKILL, 'killed')


class RayExecutor:
  """Runs trials on a Ray cluster.

  Args:
    launcher: The path of `launch.py`.
    parallel_trials: The number of trials at the same time, at most; None: as
      many as fit on the nodes of the moment.
    address: The address of the cluster; None: that of RAY_ADDRESS or of this
      machine.
    resources: What a trial occupies, NAME=NUMBER; empty: a GPU, or a CPU where
      the cluster has no GPUs.
  """

  def __init__(
    self,
    launcher: str,
    parallel_trials: int | None,
    address: str | None,
    resources: Sequence[str],
  ):
    self._program = os.path.relpath(launcher)
    self._limit = parallel_trials
    self._address = address or os.environ.get('RAY_ADDRESS', 'auto')
    self._resources = _parse(resources)
    each = ', '.join(resources) or 'a GPU (or a CPU, without GPUs)'
    self.description = f'Ray at {self._address}, each trial with {each}'

  def connect(self) -> None:
    """Connects to the cluster.

    Raises:
      UserError: Ray is not installed, or there is no cluster.
    """
    if importlib.util.find_spec('ray') is None:
      raise UserError("--executor=ray needs ray: pip install -e '.[ray]'")
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    import ray

    try:
      ray.init(
        self._address,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level='error',
        ignore_reinit_error=True,
      )
    except (ConnectionError, ValueError) as error:
      raise UserError(
        f'there is no Ray cluster at {self._address}: start one by ray start '
        '--head, or name its --address=HOST:PORT '
        f'({str(error).splitlines()[0]})'
      ) from error
    if not self._resources:
      gpus = ray.cluster_resources().get('GPU', 0)
      self._resources = {'GPU': 1.0} if gpus else {'CPU': 1.0}

  def command(self, flags: Sequence[str], index: int) -> str:
    """Returns the command line of a trial on its node."""
    del index
    return shlex.join(['python', self._program, *flags])

  def parallel(self) -> int:
    """Returns the number of trials that can run at the same time now."""
    import ray

    if self._limit is not None:
      return self._limit
    room = lambda node: min(
      int(node['Resources'].get(name, 0) / number + 1e-6)  # 1 / 0.2 is 5
      for name, number in self._resources.items()
    )
    return max(1, sum(room(node) for node in ray.nodes() if node['Alive']))

  def start(self, flags: Sequence[str], workdir: str, log: Path) -> RayTrial:
    """Starts a trial, or finds it if a lost driver started it."""
    import ray

    named = {**self._resources}
    is_slice = any(name.endswith('-head') for name in named)
    actor = ray.remote(TrialActor).options(
      name=workdir,
      get_if_exists=True,
      lifetime='detached',
      max_restarts=-1,
      max_task_retries=-1,
      num_cpus=named.pop('CPU', 0),
      num_gpus=named.pop('GPU', 0),
      resources=named,
    )
    handle = actor.remote(
      chips=named.get('TPU') if is_slice else None,
      program=self._program,
      flags=list(flags),
      workdir=workdir,
      log=str(log),
      cwd=os.getcwd(),
    )
    return RayTrial(handle)


def _parse(resources: Sequence[str]) -> Mapping[str, float]:
  """Parses NAME=NUMBER, ...

  Raises:
    UserError: One has another form, or a slice lacks its chips.
  """
  parsed = {}
  for text in resources:
    name, _, number = text.partition('=')
    try:
      parsed[name] = float(number)
    except ValueError:
      parsed[name] = 0.0
    number = parsed[name]
    is_whole = number <= 1 or number == int(number)
    if not (name and 0 < number < math.inf and is_whole) or name in RESERVED:
      raise UserError(
        f'--resources={text} must be NAME=NUMBER, for example GPU=1,CPU=4; a '
        'number above 1 is whole'
      )
  if any(name.endswith('-head') for name in parsed) and 'TPU' not in parsed:
    raise UserError(
      f'--resources={",".join(resources)} reserves a TPU slice: add TPU=CHIPS, '
      'the chips of one of its hosts'
    )
  return parsed
