# How a replica of two-phase commit gets what it missed: from another replica, and with leave of the
# coordinator. Commits count from 1.
@0xb1f0c6d1b1a40d06;

using Client = import "client.capnp";
using Peer = import "peer.capnp";

struct Message {
  union {
    # From this commit on.
    fetchCommits @0 :UInt64;
    commits @1 :Commits;
    # The first commit that the sender still has.
    truncated @2 :UInt64;
    fetchSnapshot @3 :FetchSnapshot;
    snapshotPiece @4 :SnapshotPiece;
    snapshotGone @5 :UInt64;
    outside @6 :Outside;
    catchUp @7 :CatchUp;
    join @8 :Join;
  }
}

struct Commit {
  number @0 :UInt64;
  txn @1 :Peer.TxnId;
  writes @2 :List(Client.Write);
  # Of a parallel commit.
  pledge @3 :Pledge;
}

# What the promises on a parallel commit say besides its writes.
struct Pledge {
  participants @0 :List(UInt32);
  # Client 0 is none.
  stamp @1 :Client.Stamp;
}

struct Commits {
  from @0 :UInt64;
  commits @1 :List(Commit);
  applied @2 :UInt64;
  finishedBelow @3 :Peer.TxnId;
  # Of the coordinator that the numbers are from.
  epoch @4 :UInt64;
}

struct FetchSnapshot {
  # The newest, if `isNewest`.
  snapshot @0 :UInt64;
  isNewest @1 :Bool;
  # Rows from this key on.
  from @2 :Data;
}

struct SnapshotPiece {
  snapshot @0 :UInt64;
  from @1 :Data;
  rows @2 :List(Client.Row);
  # With the last piece: what is not rows.
  isLast @3 :Bool;
  replicated @4 :Replicated;
}

# What follows from the commits up to one, besides the rows.
struct Replicated {
  applied @0 :UInt64;
  finishedBelow @1 :Peer.TxnId;
  # Commits that are not over.
  committed @2 :List(Committed);
  # As in `Commits`.
  epoch @3 :UInt64;
}

struct Committed {
  txn @0 :Peer.TxnId;
  number @1 :UInt64;
  # As in `Commit`.
  pledge @2 :Pledge;
}

struct Outside {
  life @0 :UInt64;
  applied @1 :UInt64;
  # The newest epoch that it has all rows from.
  promised @2 :UInt64;
}

struct CatchUp {
  # The newest commit.
  to @0 :UInt64;
  # By rows: what it has applied may have other numbers.
  anew @1 :Bool;
}

struct Join {
  life @0 :UInt64;
  from @1 :Peer.TxnId;
  serveFrom @2 :UInt64;
  view @3 :UInt64;
  # Without a lease so many others have to be asked.
  others @4 :UInt32;
}
