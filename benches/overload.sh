#!/bin/sh
# Asks a fresh cluster for twice what it can do, and prints as Markdown what became of it: the most
# that 64 clients with 4 operations outstanding get done, then open loops at half and at twice that.
# Those may have many outstanding: a load that waits for places of its own is no open loop.
# Arguments go to each `kvorum bench`, as `--seconds 10s` or `--protocol paxos`.
set -eu
cd "$(dirname "$0")/.."

cargo build --release --quiet -p kvorum --bin kvorum
kvorum="${CARGO_TARGET_DIR:-target}/release/kvorum"

# The number that a field of the JSON in $1 has: `field ok` or `field latency_us p99`.
field() {
    json=$1
    shift
    for name in "$@"; do
        json=${json#*\"$name\":}
    done
    printf '%s' "${json%%[,\}]*}"
}

row() {
    awk -v name="$1" -v rate="$2" -v done="$(field "$3" ops_per_second)" \
        -v refused="$(field "$3" overloaded)" -v seconds="$(field "$3" seconds)" \
        -v late="$(field "$3" not_begun)" -v p50="$(field "$3" latency_us p50)" \
        -v p99="$(field "$3" latency_us p99)" 'BEGIN {
            printf "| %s | %s | %.0f | %.0f | %.0f | %.1f | %.1f |\n", \
                name, rate, done, refused / seconds, late, p50 / 1000, p99 / 1000
        }'
}

echo '| load | asked/s | done/s | refused/s | not begun | p50 ms | p99 ms |'
echo '|---|---|---|---|---|---|---|'
peak=$("$kvorum" bench --fresh --clients 64 --outstanding 4 --output json "$@")
row peak - "$peak"
rate=$(field "$peak" ops_per_second | sed 's/\..*//')
half=$("$kvorum" bench --fresh --clients 64 --outstanding 512 --rate $((rate / 2)) --output json "$@")
row half $((rate / 2)) "$half"
twice=$("$kvorum" bench --fresh --clients 64 --outstanding 512 --rate $((rate * 2)) --output json "$@")
row twice $((rate * 2)) "$twice"

awk -v peak="$(field "$peak" ops_per_second)" -v done="$(field "$twice" ops_per_second)" \
    -v half="$(field "$half" latency_us p99)" -v p99="$(field "$twice" latency_us p99)" 'BEGIN {
        printf "\nAt twice the peak %.0f %% of it is done, and the slowest hundredth of that takes ", \
            100 * done / peak
        printf "%.1f times as long as at half of it.\n", p99 / half
    }'
