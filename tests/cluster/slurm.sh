#!/usr/bin/env bash
# A Slurm cluster of several nodes on this one machine: for trying a grid on a real scheduler, never for work.
# Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge (`install` fetches them).
# The configuration goes into Slurm's own place, since jobs look for it there; one that is already there is kept.
# Only daemons of this cluster are ever ended: by pid file, and jobs by the cluster and node that Slurm gave them.
#
#   slurm.sh install | check | start [nodes] | stop | kill-node NAME | revive-node NAME
#
# Exit codes: 0 done, 1 failed, 77 cannot be tried here (no root, no Slurm, or the machine has a cluster of its own).
set -euo pipefail

CONF=/etc/slurm/slurm.conf
STATE=/run/steerlib-slurm-trial
MARK="# a trial cluster on one machine"
FIRST_PORT=17000
PROGRAMS=(slurmctld slurmd sinfo munged)

say() { echo "slurm.sh: $*" >&2; }
fail() { say "$*"; exit 1; }
cannot() { say "$*"; exit 77; }

need_root() { [[ "$(id -u)" == 0 ]] || cannot "got user $(id -un), expected root: slurmd starts jobs for others"; }

need_no_other() {
  if [[ -e "$CONF" ]] && ! ours; then cannot "$CONF is not ours: this machine has a cluster already"; fi
}

ours() { [[ -e "$CONF" ]] && [[ "$(head -n 1 "$CONF")" == "$MARK" ]]; }

install() {
  local program missing=""
  need_root
  need_no_other
  for program in "${PROGRAMS[@]}"; do command -v "$program" >/dev/null || missing=yes; done
  [[ -n "$missing" ]] || return 0
  command -v apt-get >/dev/null || cannot "no apt-get here; install slurmctld, slurmd, slurm-client and munge yourself"
  # Debian starts the services where systemd runs; here nothing is configured yet, so that does not matter.
  apt-get update -qq || cannot "apt-get could not be updated"
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
    slurmctld slurmd slurm-client munge >/dev/null || cannot "apt-get could not install Slurm"
}

# Whether a trial can be made here.
check() {
  local program
  need_root
  need_no_other
  for program in "${PROGRAMS[@]}"; do
    command -v "$program" >/dev/null || cannot "Slurm is not installed (no $program). Fix: $0 install"
  done
}

# The pid in a file, if it is still the program of that name; a pid alone may have gone to another process. One that
# has ended and that nobody has asked after has a name, but no program.
alive() {
  local pid
  pid="$(cat "$1" 2>/dev/null || true)"
  [[ -n "$pid" && -n "$(readlink "/proc/$pid/exe" 2>/dev/null)" && "$(cat "/proc/$pid/comm" 2>/dev/null)" == "$2" ]] \
    && echo "$pid"
}

configure() {
  local nodes="$1" host k
  host="$(hostname -s)"
  mkdir -p "$(dirname "$CONF")" "$STATE"/{ctld,log,munge}
  chmod 755 "$STATE" "$STATE/munge"
  {
    echo "$MARK"
    # A name of its own: Slurm hands it to every job, which is how jobs are told from other processes.
    echo "ClusterName=trial$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')"
    echo "SlurmctldHost=$host(127.0.0.1)"
    echo "SlurmctldPort=$FIRST_PORT"
    echo "SlurmUser=root"
    echo "SlurmdUser=root"
    echo "AuthType=auth/munge"
    # A job that lost its node waits as long as a credential lives before it starts again; by default two minutes.
    echo "AuthInfo=socket=$STATE/munge/socket,cred_expire=15"
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
    echo "MpiDefault=none"
    echo "SelectType=select/cons_tres"
    echo "SelectTypeParameters=CR_Core"
    echo "SchedulerParameters=bf_interval=5,sched_interval=5"
    # A node that dies is noticed soon, and its jobs start again elsewhere; the log of the first try is kept.
    echo "SlurmdTimeout=10"
    echo "InactiveLimit=0"
    echo "KillWait=2"
    echo "ReturnToService=2"
    echo "JobRequeue=1"
    echo "JobFileAppend=1"
    # Snakemake asks for finished jobs, too: they must be remembered for a while.
    echo "MinJobAge=600"
    # Nodes are of the size that is written here, whatever the machine has.
    echo "SlurmdParameters=config_overrides"
    for k in $(seq 1 "$nodes"); do
      echo "NodeName=trial$k NodeHostname=$host NodeAddr=127.0.0.1 Port=$((FIRST_PORT + k)) CPUs=1 RealMemory=4000"
    done
    echo "PartitionName=all Nodes=trial[1-$nodes] Default=YES MaxTime=INFINITE State=UP"
  } > "$CONF"
}

# A munge of the trial's own, with its own key and socket: one that the machine may have is left alone.
start_munge() {
  local home="$STATE/munge" k
  head -c 128 /dev/urandom > "$home/key"
  chmod 400 "$home/key"
  munged --key-file="$home/key" --socket="$home/socket" --pid-file="$STATE/munged.pid" --seed-file="$home/seed" \
    --log-file="$STATE/log/munged.log" || fail "munge cannot start (see above): $(tail -n 3 "$STATE/log/munged.log" 2>/dev/null)"
  for k in $(seq 1 20); do
    if munge --socket="$home/socket" -n 2>/dev/null | unmunge --socket="$home/socket" >/dev/null 2>&1; then return 0; fi
    sleep 0.1
  done
  fail "munge does not answer: $(tail -n 3 "$STATE/log/munged.log" 2>/dev/null)"
}

start_node() {
  mkdir -p "$STATE/$1"
  slurmd -N "$1" || fail "slurmd of $1 did not start: $(tail -n 3 "$STATE/log/$1.log" 2>/dev/null)"
}

start() {
  check
  local nodes="${1:-2}" k
  if alive "$STATE/slurmctld.pid" slurmctld >/dev/null; then fail "a trial cluster is running. Fix: $0 stop"; fi
  stop  # what a trial that was killed left behind
  trap 'code=$?; if [[ $code != 0 ]]; then stop; fi; exit $code' EXIT
  configure "$nodes"
  start_munge
  slurmctld || fail "slurmctld did not start: $(tail -n 3 "$STATE/log/slurmctld.log" 2>/dev/null)"
  for k in $(seq 1 "$nodes"); do start_node "trial$k"; done
  for k in $(seq 1 300); do
    if [[ "$(sinfo -h -t idle -o %D 2>/dev/null || true)" == "$nodes" ]]; then sinfo; return 0; fi
    sleep 0.2
  done
  tail -n 20 "$STATE"/log/*.log >&2
  fail "the nodes did not come up within a minute"
}

# Asks a daemon to end, and makes it after ten seconds; comes back when it is gone.
end_daemon() {
  local pid k
  pid="$(alive "$1" "$2")" || return 0
  kill "-${3:-TERM}" "$pid" 2>/dev/null || true
  for k in $(seq 1 150); do
    alive "$1" "$2" >/dev/null || return 0
    if [[ "$k" == 100 ]]; then kill -KILL "$pid" 2>/dev/null || true; fi
    sleep 0.1
  done
  fail "process $pid, $2, will not end"
}

# Processes of this cluster's jobs, of one node or of all: those to which Slurm gave the cluster's name, and the
# slurmstepd above each. A job keeps its environment for life, so that a process that has left its parent is found, too.
job_processes() {
  local cluster node="${1:-}" file pid parent
  cluster="$(sed -n 's/^ClusterName=//p' "$CONF")"
  [[ -n "$cluster" ]] || return 0
  for file in $(grep -lsaxz "SLURM_CLUSTER_NAME=$cluster" /proc/[0-9]*/environ); do
    if ! grep -qsaxz "SLURMD_NODENAME=${node:-trial[0-9]*}" "$file"; then continue; fi
    pid="$(cut -d/ -f3 <<< "$file")"
    parent="$(awk '/^PPid:/ {print $2}' "/proc/$pid/status" 2>/dev/null || true)"
    if [[ "$(cat "/proc/$parent/comm" 2>/dev/null)" == slurmstepd ]]; then echo "$parent"; fi
    echo "$pid"
  done | sort -u
}

end_jobs() {
  local pids k
  for k in $(seq 1 20); do  # again until none is left: one may have been starting another
    pids="$(job_processes "$@")"
    if [[ -z "$pids" ]]; then return 0; fi
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null || true
    sleep 0.1
  done
  fail "processes of ${1:-the cluster} will not end: $(tr '\n' ' ' <<< "$pids")"
}

# As a power cut does it: the daemon and everything that it started are gone, and nobody is told.
kill_node() {
  ours || fail "no trial cluster is running"
  alive "$STATE/$1.pid" slurmd >/dev/null || fail "no node $1 is running"
  end_daemon "$STATE/$1.pid" slurmd KILL
  end_jobs "$1"
}

revive_node() { start_node "$1"; }

stop() {
  local file
  if ours; then
    for file in "$STATE"/trial*.pid; do end_daemon "$file" slurmd; done
    end_jobs
    end_daemon "$STATE/slurmctld.pid" slurmctld
    rm -f "$CONF"
  fi
  end_daemon "$STATE/munged.pid" munged
  rm -rf "$STATE"
}

command="${1:-}"
shift || true
case "$command" in
  install) install ;;
  check) check ;;
  start) start "$@" ;;
  stop) need_root; stop ;;
  kill-node) need_root; kill_node "${1:?which node}" ;;
  revive-node) need_root; revive_node "${1:?which node}" ;;
  *) fail "got '$command', expected install, check, start [nodes], stop, kill-node NAME or revive-node NAME" ;;
esac
