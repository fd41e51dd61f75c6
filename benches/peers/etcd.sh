#!/usr/bin/env bash
# Kvorum and etcd side by side: puts a second on three servers each, on this machine, on the same
# disk, every acknowledged write synced by a majority. Both are loaded by 64 and by 256 clients,
# each with a connection of its own and one put of 16 + 128 bytes outstanding, in turn, ROUNDS times.
# Prints every run, and the ratios of the medians.
#
#   apt-get install etcd-server            # or etcd from anywhere, in PATH
#   benches/peers/etcd.sh [SECONDS] [ROUNDS]
#
# Environment: KVORUM_BENCH, flags of `kvorum bench` besides those below; TMPDIR, the disk to use.
set -euo pipefail

seconds=${1:-8} rounds=${2:-3}
cd "$(dirname "$0")/../.."
command -v etcd >/dev/null || { echo "etcd is not in PATH: apt-get install etcd-server" >&2; exit 2; }

cargo build --release --quiet -p kvorum
cargo build --release --quiet -p kvorum-benches --features peers --bin etcd-load
target=$(cargo metadata --no-deps --format-version 1 | python3 -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work"' EXIT

# Port of member N for clients, and for its peers.
client_port() { echo $((23790 + $1)); }
peer_port() { echo $((23800 + $1)); }

start_etcd() {
    local cluster="" n
    for n in 1 2 3; do cluster+="${cluster:+,}e$n=http://127.0.0.1:$(peer_port $n)"; done
    for n in 1 2 3; do
        etcd --name "e$n" --data-dir "$work/$1/e$n" --log-level error --logger zap \
            --listen-client-urls "http://127.0.0.1:$(client_port $n)" \
            --advertise-client-urls "http://127.0.0.1:$(client_port $n)" \
            --listen-peer-urls "http://127.0.0.1:$(peer_port $n)" \
            --initial-advertise-peer-urls "http://127.0.0.1:$(peer_port $n)" \
            --initial-cluster "$cluster" --initial-cluster-state new \
            --initial-cluster-token "$1" 2>>"$work/etcd.log" &
    done
    for n in 1 2 3; do
        until curl -sf "http://127.0.0.1:$(client_port $n)/health" 2>/dev/null | grep -q '"true"'; do
            sleep 0.1
        done
    done
}

stop_etcd() { kill $(jobs -p); wait || true; }

# The clients all speak to the leader, which spares etcd the way from a follower to it.
leader() {
    local n
    for n in 1 2 3; do
        if curl -s "http://127.0.0.1:$(client_port $n)/metrics" | grep -q '^etcd_server_is_leader 1'; then
            echo "http://127.0.0.1:$(client_port $n)"
            return
        fi
    done
    echo "etcd has no leader" >&2
    exit 1
}

for round in $(seq "$rounds"); do
    for clients in 64 256; do
        start_etcd "r$round-$clients"
        result=$("$target/release/etcd-load" --clients "$clients" --seconds "$seconds" --endpoints "$(leader)")
        stop_etcd
        echo "etcd   $clients $result" | tee -a "$work/results"
        # shellcheck disable=SC2086 # Several flags.
        result=$("$target/release/kvorum" --output json bench --fresh --protocol paxos --replicas 3 \
            --clients "$clients" --seconds "$seconds" ${KVORUM_BENCH:-} 2>/dev/null)
        echo "kvorum $clients $result" | tee -a "$work/results"
    done
done

python3 - "$work/results" <<'PYTHON'
import json, statistics, sys

runs = {}
for line in open(sys.argv[1]):
    store, clients, result = line.split(maxsplit=2)
    runs.setdefault((int(clients), store), []).append(json.loads(result))
for clients in sorted({clients for clients, _ in runs}):
    median = lambda store, what: statistics.median(run[what] for run in runs[clients, store])
    rate, p50 = (median("kvorum", what) / median("etcd", what) for what in ("ops_per_second", "p50_us"))
    print(f"{clients} clients: {rate:.2f} times etcd's puts a second, {p50:.2f} of its p50")
PYTHON
