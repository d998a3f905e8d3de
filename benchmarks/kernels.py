"""Reads the kernels of a trace that jax.profiler wrote."""

import collections
import gzip
import json
import re
from pathlib import Path
from typing import Any, NamedTuple


class Kernel(NamedTuple):
  """A kernel, or several that differ in their number only.

  Attributes:
    name: Its name, without a number at its end.
    calls: How often it ran.
    milliseconds: The time of all calls.
    share: The share of the time of all kernels.
  """

  name: str
  calls: int
  milliseconds: float
  share: float


def read_trace(folder: Path) -> list[dict[str, Any]]:
  """Returns the events of the newest trace below a folder."""
  files = sorted(folder.rglob('*.trace.json.gz'))
  with gzip.open(files[-1], 'rt') as file:
    return json.load(file)['traceEvents']


def top_kernels(events: list[dict[str, Any]], count: int = 15) -> list[Kernel]:
  """Returns the kernels that took longest, the longest first.

  Kernels are the events of the streams of a GPU, and the operations of a TPU.
  Other lines of the trace show the same time again, by module or by step.

  Args:
    events: The events of a trace, in Chrome's format.
    count: The number of kernels, at most. Of a CPU, there are none.
  """
  names = {'process_name': {}, 'thread_name': {}}
  for event in events:
    if event.get('ph') == 'M' and event['name'] in names:
      key = event['pid'], event.get('tid')
      names[event['name']][key] = event['args']['name']
  on_device = {
    pid
    for (pid, _), name in names['process_name'].items()
    if name.startswith('/device:')
  }
  for kind in ('Stream', 'XLA Ops'):
    lanes = {
      lane
      for lane, name in names['thread_name'].items()
      if lane[0] in on_device and name.startswith(kind)
    }
    spans = [
      event
      for event in events
      if event.get('ph') == 'X' and (event['pid'], event.get('tid')) in lanes
    ]
    if spans:
      break
  calls, time = collections.Counter(), collections.Counter()
  for event in spans:
    name = re.sub(r'[._]\d+$', '', event['name'])
    calls[name] += 1
    time[name] += event['dur']
  total = sum(time.values())
  return [
    Kernel(name, calls[name], us / 1e3, us / total)
    for name, us in time.most_common(count)
  ]
