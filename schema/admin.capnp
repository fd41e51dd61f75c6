# Looking at one process: what it is, how it is, what it holds. And who belongs to a cluster with a
# coordinator.
@0xb1f0c6d1b1a40d03;

using Client = import "client.capnp";
using Peer = import "peer.capnp";

interface Admin {
  status @0 () -> (status :Status);

  # The rows this process holds itself, without asking anybody; a coordinator holds none.
  # Rows from `start` on, at one point in time for each call.
  inspect @1 (start :Data, limit :UInt32) -> (rows :List(Client.Row), more :Bool);

  # Of a coordinator: have the cluster one replica more, or one less; anybody else says where it is.
  # Whoever asks for what is so already is told that it is done. Timeouts as a client's.
  addReplica @2 (node :UInt32, address :Text, timeoutMs :UInt32) -> (result :Client.WriteResult);
  removeReplica @3 (node :UInt32, timeoutMs :UInt32) -> (result :Client.WriteResult);
}

struct Status {
  # "coordinator" or "replica".
  role @0 :Text;
  node @1 :UInt32;
  # Hexadecimal; empty while the process has not joined one.
  cluster @2 :Text;
  address @3 :Text;
  version @4 :Text;
  incarnation @5 :UInt64;
  # Record numbers of the log: the last appended and the last synced.
  logLast @6 :UInt64;
  logDurable @7 :UInt64;
  inFlight @8 :UInt64;
  inDoubt @9 :UInt64;
  locks @10 :UInt64;
  uptimeMs @11 :UInt64;
  # Every node of the cluster that this one knows, itself included.
  members @12 :List(MemberStatus);
  counters @13 :List(Counter);
  # Who decides for the cluster, as far as this process knows; 0 if it knows of nobody.
  leader @14 :UInt32;
  protocol @15 :Text;
}

struct MemberStatus {
  node @0 :UInt32;
  address @1 :Text;
  # Whether the answering process has a link to it.
  up @2 :Bool;
}

struct Counter {
  name @0 :Text;
  value @1 :UInt64;
}
