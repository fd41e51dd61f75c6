#!/bin/sh
# Measures our engine and all its peers and prints the table as Markdown. Arguments go to the
# program: see its --help, and README.md beside this file for what is measured.
set -eu
cd "$(dirname "$0")/../.."

# RocksDB is slow without the processor's own instructions; SQLite takes fsync for fdatasync
# unless it is told that there is one.
export CFLAGS="${CFLAGS:--march=native -fomit-frame-pointer -g0}"
export CXXFLAGS="${CXXFLAGS:--march=native -fomit-frame-pointer -g0}"
export LIBSQLITE3_FLAGS="${LIBSQLITE3_FLAGS:--DHAVE_FDATASYNC=1}"

exec cargo run --release --quiet -p kvorum-engines --features peers -- --markdown "$@"
