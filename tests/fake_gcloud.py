"""Stands in for gcloud: `compute tpus tpu-vm ssh` to slices of two hosts.

A slice is a folder of SLICES and vanishes with the folder. As with the real
gcloud, a program on a host keeps running when the connection is lost. The
output has the format of gcloud 5xx.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

HOSTS = 2


def parse():
  if sys.argv[1:5] != ['compute', 'tpus', 'tpu-vm', 'ssh']:
    sys.exit(f'ERROR: (gcloud) Invalid choice: {sys.argv[1:5]}')
  parser = argparse.ArgumentParser(allow_abbrev=False)
  parser.add_argument('name')
  parser.add_argument('--zone', required=True)
  parser.add_argument('--worker', default='0')
  parser.add_argument('--command', required=True)
  return parser.parse_args(sys.argv[5:])


def gone(name, zone):
  print(
    'ERROR: (gcloud.compute.tpus.tpu-vm.ssh) NOT_FOUND: Resource '
    f"'projects/p/locations/{zone}/nodes/{name}' was not found",
    file=sys.stderr,
  )
  sys.exit(1)


def main():
  args = parse()
  slices = Path(os.environ['SLICES'])
  with (slices / 'calls').open('a') as file:
    file.write(json.dumps(sys.argv[1:]) + '\n')
  where = slices / args.name
  if not where.is_dir():
    gone(args.name, args.zone)
  assert args.worker == 'all'
  print('Using ssh batch size of 1.', file=sys.stderr, flush=True)
  call, started = uuid.uuid4().hex, []
  for host in range(HOSTS):
    home = where / f'host{host}'
    (home / 'tmp').mkdir(parents=True, exist_ok=True)
    print(f'SSH: Attempting to connect to worker {host}...', file=sys.stderr)
    started.append(
      subprocess.Popen(
        ['bash', '-c', args.command],
        cwd=home,
        env={
          **os.environ, 'HOME': str(home), 'TMPDIR': str(home / 'tmp'),
          'HOST': f'{host}', 'CALL': call, 'SLICE': args.name,
        },
        start_new_session=True,
      )
    )  # fmt: skip
  while any(process.poll() is None for process in started):
    if not where.is_dir():
      for process in started:  # they ran on this slice
        process.kill()
        process.wait()
      print('Retrying: SSH command error: [ssh] exited with return code [255].')
      sys.exit(255)
    time.sleep(0.02)
  codes = [process.returncode for process in started]
  codes = [128 - code if code < 0 else code for code in codes]
  for host, code in enumerate(codes):
    if code:
      print(
        f'##### Command execution on worker {host} failed with exit status '
        f'{code}. Continuing.',
        file=sys.stderr,
      )
  sys.exit(next((code for code in codes if code), 0))


main()
