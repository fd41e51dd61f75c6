# What a client may ask of a cluster, and the gate through which every connection comes in.
@0xb1f0c6d1b1a40d01;

using Admin = import "admin.capnp".Admin;
using Peer = import "peer.capnp";

# The bootstrap interface of every listening socket. It holds no rights but to ask for some.
interface Gate {
  # The interface for reading and writing. The token is empty where the server asks for none.
  client @0 (token :Data) -> (store :KeyValue);

  # The interface for looking at a process.
  admin @1 (token :Data) -> (admin :Admin);

  # Another node of the cluster introduces itself, and hands over the inbox in which it takes its
  # messages; the answer is this node's introduction and inbox, or why it refuses.
  attach @2 (hello :Peer.Hello, inbox :Peer.Inbox) -> (result :Peer.Attached);
}

# The store. Writes carry a stamp, so that a client that lost the answer can ask again and the
# write still happens once. Timeouts are milliseconds from the request's arrival; 0 is the server's.
interface KeyValue {
  openSession @0 (timeoutMs :UInt32) -> (result :SessionResult);

  # With `stale` the replica that is asked answers from what it holds, be it old, without asking
  # anybody; without, the answer is linearizable.
  get @1 (key :Data, timeoutMs :UInt32, stale :Bool) -> (result :GetResult);

  put @2 (stamp :Stamp, key :Data, value :Data, timeoutMs :UInt32) -> (result :WriteResult);
  delete @3 (stamp :Stamp, key :Data, timeoutMs :UInt32) -> (result :WriteResult);
  transact @4 (stamp :Stamp, transaction :Transaction, timeoutMs :UInt32) -> (result :WriteResult);

  # Rows from `start` up to and without `end`, at one point in time; `hasEnd` false has no end.
  # `stale` as above. If it is `paged` and there is more, a replica holds the snapshot that it has
  # answered from, and names it; with `of` the rows are of the snapshot of that name, whatever was
  # written since. After the `last` page, if it has as many rows as were asked for, none is held.
  scan @5 (start :Data, end :Data, hasEnd :Bool, limit :UInt32, timeoutMs :UInt32, stale :Bool,
           paged :Bool, last :Bool, of :Held) -> (result :ScanResult);

  # The values of several keys at one point in time, in the order of the keys. `stale` as above.
  getMany @6 (keys :List(Data), timeoutMs :UInt32, stale :Bool) -> (result :GetManyResult);
}

# Names a snapshot that a replica holds, for a while, for the pages of one scan; number 0 names none.
struct Held {
  by @0 :UInt32;
  # The run of that replica, and which of those that it gave out.
  run @1 :UInt64;
  number @2 :UInt64;
}

struct MaybeValue {
  union {
    missing @0 :Void;
    value @1 :Data;
  }
}

# Client and sequence name a write for ever; client 0 marks a write without a stamp.
struct Stamp {
  client @0 :UInt64;
  sequence @1 :UInt64;
  answeredBelow @2 :UInt64;
}

# All writes happen at one moment at which all preconditions hold, or none does.
struct Transaction {
  preconditions @0 :List(Precondition);
  writes @1 :List(Write);
}

struct Precondition {
  key @0 :Data;
  union {
    absent @1 :Void;
    present @2 :Void;
    equals @3 :Data;
  }
}

struct Write {
  key @0 :Data;
  union {
    put @1 :Data;
    delete @2 :Void;
  }
}

struct Row {
  key @0 :Data;
  value @1 :Data;
}

struct SessionResult {
  union {
    client @0 :UInt64;
    failed @1 :Failure;
  }
}

struct GetResult {
  union {
    value @0 :Data;
    missing @1 :Void;
    failed @2 :Failure;
  }
}

struct GetManyResult {
  union {
    values @0 :List(MaybeValue);
    failed @1 :Failure;
  }
}

struct WriteResult {
  union {
    committed @0 :Void;
    failed @1 :Failure;
  }
}

struct ScanResult {
  union {
    rows :group {
      rows @0 :List(Row);
      # There is more in the range than the limits of rows and bytes let through.
      more @1 :Bool;
      # Of which snapshot the next page is to be read, if the scan is paged and goes on.
      held @3 :Held;
    }
    failed @2 :Failure;
  }
}

# Why a request did not end well. Everything but `unknown`, `sessionExpired` and `staleSequence`
# says that it did not happen and will not.
struct Failure {
  union {
    # Another transaction in flight holds this key.
    conflict @0 :Data;
    preconditionFailed :group {
      index @1 :UInt32;
      key @2 :Data;
    }
    unavailable @3 :Text;
    overloaded @4 :Void;
    unknown @5 :Text;
    sessionExpired @6 :Void;
    staleSequence @7 :Void;
    invalid @8 :Text;
    # Ask this address instead; empty if not known.
    redirect @9 :Text;
    storage @10 :Text;
    # There is no room on this node's disk.
    diskFull @11 :UInt32;
    # The snapshot of this scan is not held any more.
    snapshotExpired @12 :Void;
  }
}
