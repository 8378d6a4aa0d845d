# Where the cluster lies, what it is called, and how its processes are watched. Sourced by each script here, never run.
set -euo pipefail
shopt -s inherit_errexit nullglob

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CLUSTER=${XDG_CACHE_HOME:-$HOME/.cache}/redis-backup/cluster

say() { printf '%s %s\n' "$(date +%T)" "$*" >&2; }
fail() { say "tests/cluster/$(basename "$0"): $*"; exit 1; }
needs() { command -v "$1" >/dev/null || fail "$1 is needed for $2"; }

(( ${#CLUSTER} <= 60 )) || fail "this folder's name is too long for the unix sockets below it: $CLUSTER"

PROGRAMS=$CLUSTER/bin      # Go programs, built once
NODE=$CLUSTER/node         # Debian packages of the node, unpacked
BUILDAH=$CLUSTER/buildah  # what builds our own image, unpacked
IMAGES=$CLUSTER/images     # docker-archive files
WORK=$CLUSTER/.building    # what is half done
RUN=$CLUSTER/run           # all that a running cluster writes; `down` deletes it
KEYS=$RUN/pki
LOGS=$RUN/logs
PIDS=$RUN/pids
CONTAINERD=$RUN/containerd.sock

# Addresses and names that are the cluster's own, so that the machine's network does not matter.
NODE_NAME=redis-backup
NODE_LINK=rb-node
POD_LINK=rb-pods
NODE_IP=10.250.0.1
POD_RANGE=10.244.0.0/24
SERVICE_RANGE=10.96.0.0/16
SERVICE_OF_API=10.96.0.1  # the first address of that range
CNI_NAME=redis-backup

export KUBECONFIG=$CLUSTER/kubeconfig
export PATH=$PROGRAMS:$NODE/usr/bin:$NODE/usr/sbin:$NODE/sbin:$PATH
NODE_LIBRARIES=$NODE/usr/lib/$(uname -m)-linux-gnu

# step NAME COMMAND...: runs it and says how long it took
step() {
  local name=$1 began=$EPOCHREALTIME; shift
  "$@"
  say "$(awk -v began="$began" -v ended="$EPOCHREALTIME" -v name="$name" 'BEGIN { printf "%-28s %6.1f s", name, ended - began }')"
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    (( SECONDS < deadline )) || fail "gave up waiting for $what; see $LOGS"
    sleep 0.2
  done
}

# ---- processes of the cluster ----

# A file of PIDS holds "PID START-TIME": the start time tells our process from a later one of the same number.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

alive() {
  local pid began
  read -r pid began 2>/dev/null <"$PIDS/$1" && [[ -n $pid && $(start_time "$pid") == "$began" ]]
}

# daemon NAME COMMAND...: starts it in a session of its own, unless it runs
daemon() {
  local name=$1; shift
  ! alive "$name" || return 0
  mkdir -p "$PIDS" "$LOGS"
  # The lock of whoever started it is not for it to hold.
  setsid "$@" >>"$LOGS/$name.log" 2>&1 </dev/null 9>&- &
  echo "$! $(start_time $!)" >"$PIDS/$name"
}

# stop NAME: TERM, then KILL after ten seconds
stop() {
  local pid
  if alive "$1"; then
    read -r pid _ <"$PIDS/$1"
    kill "$pid" || true
    for _ in {1..100}; do alive "$1" || break; sleep 0.1; done
    ! alive "$1" || kill -9 "$pid"
  fi
  rm -f "$PIDS/$1"
}

with_node_libraries() { env LD_LIBRARY_PATH="$NODE_LIBRARIES" "$@"; }
containerd_client() { ctr --address "$CONTAINERD" --namespace k8s.io "$@"; }

# Only one script at a time changes what lies there; those that it calls know that it holds the lock.
take_turn() {
  [[ $(id -u) == 0 ]] || fail "only root can do that"
  mkdir -p "$CLUSTER"
  [[ -z ${REDIS_BACKUP_CLUSTER_TURN:-} ]] || return 0
  exec 9>"$CLUSTER/.lock"
  flock 9
  export REDIS_BACKUP_CLUSTER_TURN=taken
}
