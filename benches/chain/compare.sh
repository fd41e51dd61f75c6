#!/bin/sh
# Runs the bare chain and fresh clusters of Kvorum in turn and prints how they compare, as Markdown.
# Arguments go to the program: see `compare.sh --help`, and README.md beside this file.
set -eu
cd "$(dirname "$0")/../.."

cargo build --release --quiet -p kvorum -p kvorum-chain --bin kvorum --bin kvorum-chain
target="${CARGO_TARGET_DIR:-target}/release"
exec "$target/kvorum-chain" compare --kvorum "$target/kvorum" "$@"
