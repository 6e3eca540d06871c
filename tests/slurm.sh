#!/usr/bin/env bash
# A throw-away Slurm cluster of one node, on this machine, for tests: slurm.sh start|stop
# Needs root on Debian or Ubuntu; neither systemd nor cgroups. Its timers are short.
set -euo pipefail

dir=/var/lib/slurm-test conf=/etc/slurm/slurm.conf mark='# written by tests/slurm.sh'
die() { echo "slurm.sh: $*" >&2; exit 1; }
within() { local n=$1; shift; until "$@"; do ((n-- > 0)) || return 1; sleep 0.2; done; }
up() { grep -qsxF "$mark" $conf && timeout 5 sinfo -ho %t 2>/dev/null | grep -Eq '^(idle|mix|alloc|comp)$'; }
empty() { [ -z "$(squeue -h)" ]; }
gone() { ! grep -qs "$2" "/proc/$1/cmdline"; }  # a zombie's is empty
get() { apt-get install -yqq --no-install-recommends slurm-wlm munge; }

stop() {
  local name pid
  # A job's slurmstepd outlives slurmd, so the jobs go first.
  if up; then scancel -u root; within 100 empty || true; fi
  for name in slurmd slurmctld munged; do
    pid=$(cat $dir/$name.pid 2>/dev/null) || continue
    gone "$pid" $name || kill "$pid"
    within 100 gone "$pid" $name || die "$name ($pid) does not stop"
  done
}

start() {
  local host
  if up; then return; fi
  [ ! -e $conf ] || grep -qxF "$mark" $conf || die "$conf belongs to another cluster"
  if ! { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    { get || { apt-get update -qq && get; }; } &>$dir.apt.log ||
      die "cannot install slurm-wlm and munge: see $dir.apt.log"
  fi
  stop
  host=$(uname -n) host=${host%%.*}
  getent hosts "$host" >/dev/null || echo "127.0.0.1 $host" >>/etc/hosts
  rm -rf $dir
  mkdir -p $dir/state $dir/spool /etc/slurm
  # From 23.11 on slurmd looks for cgroups unless told not to; older ones reject the word.
  if dpkg --compare-versions "$(slurmd -V | cut -d' ' -f2)" ge 23.11; then
    echo 'CgroupPlugin=disabled' >/etc/slurm/cgroup.conf
  fi
  # cred_expire is also how long a requeued job waits before it may start again: 120 s unless set.
  cat >$conf <<CONF
$mark
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthInfo=cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
JobRequeue=1
KillWait=10
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=$host NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
PartitionName=main Default=YES Nodes=$host PriorityTier=2 PreemptMode=OFF
PartitionName=low Nodes=$host PriorityTier=1 GraceTime=20
CONF
  # Without systemd nobody makes /run/munge. A munged that runs already serves as well, and stop leaves it.
  if ! munge -n &>/dev/null; then
    install -d -o munge -g munge /run/munge
    runuser -u munge -- munged || die 'munged did not start: see /var/log/munge'
    cp /run/munge/munged.pid $dir
  fi
  { slurmctld && slurmd && within 150 up; } || { stop; die "the cluster did not come up: see $dir/*.log"; }
}

[ "$(id -u)" = 0 ] || die 'must run as root'
case ${1-} in
  start | stop) "$1" ;;
  *) die 'usage: slurm.sh start|stop' ;;
esac
