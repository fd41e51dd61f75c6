//! The Cap'n Proto schema of Kvorum, and the Rust code generated from it.
//!
//! The code in `src/generated` is checked in, so that a build needs no `capnp` tool. After a change
//! of a `.capnp` file run `cargo xtask codegen`, which does; the test `fresh` fails until then.

#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction, clippy::allow_attributes_without_reason, reason = "generated code; the schema files carry the words")]
mod generated {
    pub mod admin_capnp;
    pub mod any_replica_capnp;
    pub mod catch_up_capnp;
    pub mod client_capnp;
    pub mod paxos_capnp;
    pub mod peer_capnp;
}

pub use generated::{
    admin_capnp, any_replica_capnp, catch_up_capnp, client_capnp, paxos_capnp, peer_capnp,
};
