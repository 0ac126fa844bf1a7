#!/usr/bin/env bash
# A Slurm cluster of several nodes on this one machine: for trying a grid on a real scheduler, never for work.
# Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge (`install` fetches them).
# The configuration goes into Slurm's own place, since jobs look for it there; one that is already there is kept.
#
#   slurm.sh install | start [nodes] | stop | kill-node NAME | revive-node NAME
set -euo pipefail

CONF=/etc/slurm/slurm.conf
STATE="${SLURM_TRIAL_STATE:-/tmp/slurm-trial}"
MARK="# a trial cluster on one machine"
FIRST_PORT=17000

fail() { echo "slurm.sh: $*" >&2; exit 1; }

need_root() { [[ "$(id -u)" == 0 ]] || fail "got user $(id -un), expected root: slurmd starts jobs for others"; }

install() {
  need_root
  command -v apt-get >/dev/null || fail "no apt-get here; install slurmctld, slurmd, slurm-client and munge yourself"
  apt-get update -qq
  # Debian starts the services where systemd runs; here nothing is configured yet, so that does not matter.
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
    slurmctld slurmd slurm-client munge >/dev/null
}

configure() {
  local nodes="$1" host cores memory k
  host="$(hostname -s)"
  cores="$(nproc)"
  memory="$(awk '/MemAvailable/ {print int($2 / 1024 / 2)}' /proc/meminfo)"
  if [[ -e "$CONF" ]] && ! grep -q "^$MARK" "$CONF"; then fail "$CONF is not ours: this machine has a cluster already"; fi
  mkdir -p "$(dirname "$CONF")" "$STATE"/{ctld,log}
  {
    echo "$MARK"
    echo "ClusterName=trial"
    echo "SlurmctldHost=$host"
    echo "SlurmUser=root"
    echo "SlurmdUser=root"
    echo "AuthType=auth/munge"
    echo "CredType=cred/munge"
    echo "StateSaveLocation=$STATE/ctld"
    echo "SlurmdSpoolDir=$STATE/%n"
    echo "SlurmctldPidFile=$STATE/slurmctld.pid"
    echo "SlurmdPidFile=$STATE/%n.pid"
    echo "SlurmctldLogFile=$STATE/log/slurmctld.log"
    echo "SlurmdLogFile=$STATE/log/%n.log"
    # No cgroups: a container may not have them.
    echo "ProctrackType=proctrack/pgid"
    echo "TaskPlugin=task/none"
    echo "JobAcctGatherType=jobacct_gather/none"
    echo "SelectType=select/cons_tres"
    echo "SelectTypeParameters=CR_Core"
    echo "SchedulerParameters=bf_interval=5,sched_interval=5"
    # A node that dies is noticed soon, and its jobs start again elsewhere.
    echo "SlurmdTimeout=20"
    echo "InactiveLimit=0"
    echo "ReturnToService=2"
    echo "JobRequeue=1"
    # Snakemake asks for finished jobs, too: they must be remembered for a while.
    echo "MinJobAge=600"
    for k in $(seq 1 "$nodes"); do
      echo "NodeName=trial$k NodeHostname=$host NodeAddr=127.0.0.1 Port=$((FIRST_PORT + k)) CPUs=$cores RealMemory=$memory"
    done
    echo "PartitionName=all Nodes=trial[1-$nodes] Default=YES MaxTime=INFINITE State=UP"
  } > "$CONF"
}

start_munge() {
  if pgrep -x munged >/dev/null; then return; fi
  mkdir -p /run/munge
  chown munge: /run/munge
  [[ -s /etc/munge/munge.key ]] || { head -c 128 /dev/urandom > /etc/munge/munge.key; chown munge: /etc/munge/munge.key; chmod 400 /etc/munge/munge.key; }
  runuser -u munge -- munged
  munge -n | unmunge >/dev/null || fail "munge does not answer"
}

start_node() { mkdir -p "$STATE/$1"; slurmd -N "$1"; }

start() {
  need_root
  command -v slurmctld >/dev/null || fail "no slurmctld: run \`$0 install\`"
  local nodes="${1:-2}" k
  stop
  configure "$nodes"
  start_munge
  slurmctld
  for k in $(seq 1 "$nodes"); do start_node "trial$k"; done
  for k in $(seq 1 60); do
    if [[ "$(sinfo -h -t idle -o %D 2>/dev/null || true)" == "$nodes" ]]; then sinfo; return; fi
    sleep 1
  done
  tail -n 20 "$STATE"/log/*.log >&2
  fail "the nodes did not come up within a minute"
}

kill_pid() {
  local pid
  pid="$(cat "$1" 2>/dev/null || true)"
  if [[ -n "$pid" ]]; then kill "-${2:-TERM}" "$pid" 2>/dev/null || true; fi
}

kill_node() {
  # As a power cut does it: the daemon and everything that it started.
  local step
  for step in $(pgrep -f "slurmstepd: .*" || true); do
    if [[ "$(readlink -f "/proc/$step/cwd" 2>/dev/null)" == "$STATE/$1"* ]] || grep -qa "SLURMD_NODENAME=$1" "/proc/$step/environ" 2>/dev/null; then
      pkill -KILL -P "$step" || true
      kill -KILL "$step" 2>/dev/null || true
    fi
  done
  for step in $(grep -la "SLURMD_NODENAME=$1" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3); do kill -KILL "$step" 2>/dev/null || true; done
  kill_pid "$STATE/$1.pid" KILL
  scontrol update "nodename=$1" state=down reason="switched off in a test"
}

revive_node() { start_node "$1"; scontrol update "nodename=$1" state=resume || true; }

stop() {
  if [[ -e "$CONF" ]] && grep -q "^$MARK" "$CONF"; then
    scancel --user=root --quiet 2>/dev/null || true
    for pidfile in "$STATE"/*.pid; do kill_pid "$pidfile"; done
    sleep 1
    rm -f "$CONF"
  fi
  rm -rf "$STATE"
}

command="${1:-}"
shift || true
case "$command" in
  install) install ;;
  start) start "$@" ;;
  stop) need_root; stop ;;
  kill-node) need_root; kill_node "$1" ;;
  revive-node) need_root; revive_node "$1" ;;
  *) fail "got '$command', expected install, start [nodes], stop, kill-node NAME or revive-node NAME" ;;
esac
